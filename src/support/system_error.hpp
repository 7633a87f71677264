// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <filesystem>
#include <string>
#include <string_view>

#include "support/error.hpp"

namespace polysketch {

/// The exit code for an errno: 77 for what is not allowed (EACCES, EPERM, EROFS), 71 where memory,
/// processes or threads ran out (ENOMEM, EAGAIN), 74 for full disks, limits and devices (ENOSPC,
/// EDQUOT, EFBIG, EMFILE, ENFILE, EIO); for everything else what the caller was about to do
/// decides.
ExitCode exit_code_of(int error, ExitCode otherwise);

/// The same for something that should have been there to be read: 66 if there is, or can be,
/// nothing under that name (ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG), else 74.
ExitCode exit_code_of_reading(int error);

/// strerror, with the remedy where there is a usual one ("raise it by ulimit -n").
std::string reason_of(int error);

/// The machine, or what it allows this process, is used up (EMFILE, ENFILE, ENOMEM). Says nothing
/// of the file that could not be opened then, so nobody may take the file for a damaged one.
class NothingLeft : public UserError {
 public:
  using UserError::UserError;
};

/// "PATH: cannot ACTION: reason". NothingLeft where that is the reason, else UserError.
[[noreturn]] void throw_system_error(const std::filesystem::path& path, std::string_view action,
                                     int error, ExitCode otherwise);

/// What to say, and to exit with, for any exception. A UserError knows. The operating system's
/// refusals and want of memory keep their meaning where no part of the program has made a UserError
/// of them; what is left is a defect of this program (70).
struct ErrorReport {
  ExitCode code = ExitCode::internal;
  std::string text;
};
ErrorReport report_of(const std::exception& error);

}  // namespace polysketch
