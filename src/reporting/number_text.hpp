// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace polysketch {

// Numbers as people like to read them.

std::string group_digits(int64_t value);    ///< 1234567 -> "1,234,567"
std::string short_number(double value);     ///< three digits: 67.6, 1,235, 4.21e+05; "nan", "inf"
std::string short_tokens(int64_t tokens);   ///< three digits and a letter: 157M, 4.19B
std::string short_rate(double per_second);  ///< three digits and a letter: 0.52, 87.3, 1.21k, 525k

}  // namespace polysketch
