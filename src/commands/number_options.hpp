// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "support/checked_numbers.hpp"

namespace polysketch::commands {

/// Options that hold a number. All take the units of the configuration (10k, 1Mi; 90s, 30min) and
/// refuse everything else while the command line is read, with exit code 64, the option's name,
/// what was given and what is wanted. The value that stands there before is the default; the help
/// shows it if the option would take it.

constexpr int64_t kAnyCount = std::numeric_limits<int64_t>::max();

inline CLI::Option* add_checked(CLI::App& command, const std::string& name, const char* type,
                                const std::string& shown_default, const std::string& help,
                                const std::function<void(const std::string&)>& take) {
  CLI::Option* option = command.add_option_function<std::string>(name, take, help);
  option->type_name(type);
  if (!shown_default.empty()) option->default_str(shown_default);
  return option;
}

template <std::integral T>
CLI::Option* add_count(CLI::App& command, const std::string& name, T& value, int64_t least,
                       int64_t most, const std::string& help) {
  const auto now = static_cast<int64_t>(value);
  return add_checked(command, name, "N", now >= least && now <= most ? std::to_string(now) : "",
                     help, [name, &value, least, most](const std::string& text) {
                       value = static_cast<T>(checked_count(name, text, least, most));
                     });
}

inline CLI::Option* add_real(CLI::App& command, const std::string& name, double& value,
                             double least, double most, const std::string& help) {
  return add_checked(command, name, "X",
                     value >= least && value <= most ? CLI::detail::to_string(value) : "", help,
                     [name, &value, least, most](const std::string& text) {
                       value = checked_real(name, text, least, most);
                     });
}

/// In seconds. shown_default: the value as a person writes it.
inline CLI::Option* add_duration(CLI::App& command, const std::string& name, double& seconds,
                                 double least, double most, const std::string& shown_default,
                                 const std::string& help, bool bare = false) {
  return add_checked(command, name, "TIME", shown_default, help,
                     [name, &seconds, least, most, bare](const std::string& text) {
                       seconds = checked_duration(name, text, least, most, bare);
                     });
}

/// In bytes a second.
inline CLI::Option* add_bandwidth(CLI::App& command, const std::string& name, double& value,
                                  const std::string& help) {
  return add_checked(command, name, "RATE", "", help, [name, &value](const std::string& text) {
    value = checked_bandwidth(name, text);
  });
}

}  // namespace polysketch::commands
