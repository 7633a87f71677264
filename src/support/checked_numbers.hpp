// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace polysketch {

/// Numbers that a user writes on the command line, in the units of units.hpp. Whatever is no such
/// number or outside the range throws UserError 64: "OPTION: got 'TEXT', want a count, 1 to 100".

int64_t checked_count(std::string_view option, const std::string& text, int64_t least,
                      int64_t most = std::numeric_limits<int64_t>::max());

/// Several with commas between, at least one, none of them empty.
std::vector<int64_t> checked_counts(std::string_view option, const std::string& text, int64_t least,
                                    int64_t most = std::numeric_limits<int64_t>::max());

double checked_real(std::string_view option, const std::string& text, double least, double most);

/// A rate of so many things a second: a real number or a count (5987.25, 400k), above zero.
double checked_speed(std::string_view option, const std::string& text);

/// A time in seconds. bare: a number alone counts as seconds.
double checked_duration(std::string_view option, const std::string& text, double least, double most,
                        bool bare = false);

/// Bytes a second, above zero.
double checked_bandwidth(std::string_view option, const std::string& text);

}  // namespace polysketch
