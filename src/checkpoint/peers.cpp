// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/peers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <exception>
#include <thread>

#include "support/build_info.hpp"
#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace {

// What travels: "+" and the result, or "-", the exit code, a blank, host, a line end, and the text
// of the error.
constexpr char success = '+', failure = '-';

std::string failed(ExitCode code, const std::string& text) {
  return fmt::format("{}{} {}\n{}", failure, static_cast<int>(code), host_name(), text);
}

std::string run(const std::function<std::string()>& action) {
  try {
    return success + action();
  } catch (const std::exception& error) {  // a defect here must not leave the others waiting
    const ErrorReport found = report_of(error);
    return failed(found.code, found.text);
  }
}

[[noreturn]] void throw_failure(const std::string& message, size_t rank, std::ptrdiff_t all) {
  int code = 0;
  std::from_chars(message.data() + 1, message.data() + message.size(), code);
  const size_t host = message.find(' ') + 1, text = message.find('\n') + 1;
  const std::string others =
      all > 1 ? fmt::format(" (so did {} more of the processes)", all - 1) : "";
  throw UserError(static_cast<ExitCode>(code),
                  fmt::format("rank {} on host {}: {}{}", rank,
                              message.substr(host, text - host - 1), message.substr(text), others));
}

}  // namespace

std::vector<std::string> exchange(const Peers& peers, const std::function<std::string()>& action) {
  if (peers.world == 1) return {action()};
  std::vector<std::string> messages = peers.all_gather(run(action));
  require(messages.size() == static_cast<size_t>(peers.world),
          "an exchange must bring one text from each process");
  const auto is_failure = [](const std::string& message) {
    return message.empty() || message.front() != success;
  };
  const auto first = std::find_if(messages.begin(), messages.end(), is_failure);
  if (first != messages.end())
    throw_failure(*first, static_cast<size_t>(first - messages.begin()),
                  std::count_if(messages.begin(), messages.end(), is_failure));
  for (std::string& message : messages) message.erase(0, 1);
  return messages;
}

void together(const Peers& peers, const std::function<void()>& action) {
  exchange(peers, [&] {
    action();
    return std::string();
  });
}

bool becomes_true(const Peers& peers, const std::function<bool()>& condition) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(peers.patience_seconds);
  for (auto pause = std::chrono::milliseconds(1); !condition();
       pause = std::min(2 * pause, std::chrono::milliseconds(200))) {
    if (Clock::now() >= end) return false;
    std::this_thread::sleep_for(pause);
  }
  return true;
}

}  // namespace polysketch
