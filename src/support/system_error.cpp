// SPDX-License-Identifier: Apache-2.0
#include "support/system_error.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>

namespace polysketch {
namespace {

constexpr const char* out_of_memory =
    "memory ran out: close other programs, or ask for less (data.context, "
    "training.micro_batch_tokens, model.size)";

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

bool speaks_of_files(const std::error_code& code) {
  return code.category() == std::generic_category() || code.category() == std::system_category();
}

}  // namespace

ExitCode exit_code_of(int error, ExitCode otherwise) {
  switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
      return ExitCode::permission;
    case ENOMEM:
    case EAGAIN:
      return ExitCode::resources;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case EIO:
      return ExitCode::io;
    default:
      return otherwise;
  }
}

ExitCode exit_code_of_reading(int error) {
  const bool nothing_there =
      error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENAMETOOLONG;
  return exit_code_of(error, nothing_there ? ExitCode::missing_input : ExitCode::io);
}

std::string reason_of(int error) {
  std::string text = std::strerror(error);
  if (error == EMFILE) text += ": raise the limit by ulimit -n";
  if (error == ENXIO) text += ": a pipe that nobody reads, or no device";
  if (error == EFBIG) text += ": raise the limit by ulimit -f";
  return text;
}

void throw_system_error(const std::filesystem::path& path, std::string_view action, int error,
                        ExitCode otherwise) {
  const ExitCode code = exit_code_of(error, otherwise);
  const std::string text =
      fmt::format("{}: cannot {}: {}", path.string(), action, reason_of(error));
  if (error == EMFILE || error == ENFILE || error == ENOMEM) throw NothingLeft(code, text);
  throw UserError(code, text);
}

ErrorReport report_of(const std::exception& error) {
  if (const auto* known = dynamic_cast<const UserError*>(&error))
    return {known->code(), error.what()};
  if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&error)) {
    const int number = file->code().value();
    const bool in_the_way = number == EEXIST || number == EISDIR || number == ENOTEMPTY;
    return {in_the_way ? ExitCode::cannot_create : exit_code_of_reading(number),
            file->path1().empty() || number == 0
                ? first_line(error.what())
                : fmt::format("{}: cannot be used: {}", file->path1().string(), reason_of(number))};
  }
  if (const auto* system = dynamic_cast<const std::system_error*>(&error);
      system != nullptr && speaks_of_files(system->code())) {
    const int number = system->code().value();
    if (number == EAGAIN) {
      return {ExitCode::resources,
              "the system has no thread or process left: raise the limit by ulimit -u, or lower "
              "training.threads and data.threads"};
    }
    return {exit_code_of_reading(number), "the operating system refuses: " + reason_of(number)};
  }
  const std::string text = error.what();
  // LibTorch has an exception of its own for it, on each kind of device.
  const bool memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
                      text.find("DefaultCPUAllocator") != std::string::npos ||
                      text.find("out of memory") != std::string::npos;
  if (memory) return {ExitCode::resources, out_of_memory};
  return {ExitCode::internal, "internal: " + first_line(text)};
}

}  // namespace polysketch
