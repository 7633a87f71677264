// SPDX-License-Identifier: Apache-2.0
#include "support/standard_streams.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {

void write_whole(int descriptor, std::string_view text, const std::string& name) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
      continue;
    }
    const int error = errno;
    if (error == EINTR) continue;
    if (error == EPIPE) throw ReaderGone();
    if (error != EAGAIN)
      throw UserError(exit_code_of(error, ExitCode::io),
                      fmt::format("{}: cannot write: {}", name, reason_of(error)));
    // A pipe that another program has set not to wait.
    pollfd ready{descriptor, POLLOUT, 0};
    ::poll(&ready, 1, -1);
  }
}

void print(std::string_view text) { write_whole(STDOUT_FILENO, text, "standard output"); }

std::string json_text(const nlohmann::ordered_json& document, int indent) {
  return document.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void print_json(const nlohmann::ordered_json& document, int indent) {
  print(json_text(document, indent) + "\n");
}

std::string read_standard_input() {
  std::string text;
  std::array<char, 65536> buffer{};
  for (;;) {
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got == 0) return text;
    if (got > 0) {
      text.append(buffer.data(), static_cast<size_t>(got));
    } else if (errno == EAGAIN) {
      pollfd ready{STDIN_FILENO, POLLIN, 0};
      ::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      throw UserError(exit_code_of(errno, ExitCode::io),
                      fmt::format("standard input: cannot read: {}", reason_of(errno)));
    }
  }
}

void open_standard_descriptors() {
  for (int number = STDIN_FILENO; number <= STDERR_FILENO; ++number) {
    if (::fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number, which is this one.
    if (::open("/dev/null", number == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

}  // namespace polysketch
