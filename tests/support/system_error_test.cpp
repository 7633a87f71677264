// SPDX-License-Identifier: Apache-2.0
#include "support/system_error.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <new>
#include <system_error>

namespace polysketch {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(SystemError, TheReasonChoosesTheExitCode) {
  for (const int error : {EACCES, EPERM, EROFS})
    EXPECT_EQ(exit_code_of(error, ExitCode::cannot_create), ExitCode::permission) << error;
  for (const int error : {ENOSPC, EDQUOT, EFBIG, EMFILE, ENFILE, EIO})
    EXPECT_EQ(exit_code_of(error, ExitCode::cannot_create), ExitCode::io) << error;
  for (const int error : {ENOMEM, EAGAIN})
    EXPECT_EQ(exit_code_of(error, ExitCode::cannot_create), ExitCode::resources) << error;
  for (const int error : {ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG}) {
    EXPECT_EQ(exit_code_of(error, ExitCode::cannot_create), ExitCode::cannot_create) << error;
    EXPECT_EQ(exit_code_of_reading(error), ExitCode::missing_input) << error;
  }
  EXPECT_EQ(exit_code_of_reading(EISDIR), ExitCode::io);
  EXPECT_EQ(exit_code_of_reading(EACCES), ExitCode::permission);
  EXPECT_THAT(reason_of(EMFILE), AllOf(HasSubstr("Too many open files"), HasSubstr("ulimit -n")));
}

/// What would fall through to main().
TEST(SystemError, IsNeverADefectOfTheProgram) {
  const auto file = [](std::errc error) {
    return report_of(
        std::filesystem::filesystem_error("cannot copy", "some/path", std::make_error_code(error)));
  };
  const ErrorReport missing = file(std::errc::no_such_file_or_directory);
  EXPECT_EQ(missing.code, ExitCode::missing_input);
  EXPECT_EQ(missing.text, "some/path: cannot be used: No such file or directory");
  EXPECT_EQ(file(std::errc::too_many_symbolic_link_levels).code, ExitCode::missing_input);
  EXPECT_EQ(file(std::errc::file_exists).code, ExitCode::cannot_create);
  EXPECT_EQ(file(std::errc::permission_denied).code, ExitCode::permission);
  EXPECT_EQ(file(std::errc::no_space_on_device).code, ExitCode::io);
  EXPECT_EQ(file(std::errc::too_many_files_open).code, ExitCode::io);

  const ErrorReport threads =
      report_of(std::system_error(EAGAIN, std::generic_category(), "thread"));
  EXPECT_EQ(threads.code, ExitCode::resources);
  EXPECT_THAT(threads.text, AllOf(HasSubstr("no thread"), HasSubstr("training.threads")));
  EXPECT_EQ(report_of(std::system_error(EIO, std::system_category())).code, ExitCode::io);
}

TEST(SystemError, WantOfMemoryIsSaidInOneLine) {
  for (const ErrorReport& report :
       {report_of(std::bad_alloc()), report_of(std::bad_array_new_length()),
        report_of(std::runtime_error("[enforce fail at alloc_cpu.cpp:124] err == 0. "
                                     "DefaultCPUAllocator: can't allocate memory: you tried to\n")),
        report_of(std::runtime_error("CUDA out of memory. Tried to allocate 2 GiB\nstack"))}) {
    EXPECT_EQ(report.code, ExitCode::resources);
    EXPECT_THAT(report.text, AllOf(HasSubstr("memory ran out"), Not(HasSubstr("\n"))));
  }
}

TEST(SystemError, OthersKeepTheirMeaning) {
  const ErrorReport known = report_of(UserError(ExitCode::config, "a\nb"));
  EXPECT_EQ(known.code, ExitCode::config);
  EXPECT_EQ(known.text, "a\nb");
  const ErrorReport defect = report_of(std::logic_error("odd\nstack"));
  EXPECT_EQ(defect.code, ExitCode::internal);
  EXPECT_EQ(defect.text, "internal: odd");
}

}  // namespace
}  // namespace polysketch
