// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace polysketch {

/// Checks that `line` is one JSON object (RFC 8259, strictly; nested at most 64 deep) and puts its
/// string member `field` into `text`. Returns an empty text, or what is wrong: not JSON and where,
/// member missing, null, not a string, twice, a lone surrogate escape. UTF-8 is not checked here.
///
/// Own code, since the Arrow and Parquet libraries of the wheel export a simdjson of their own: a
/// second version in the same process takes part of its functions from theirs and crashes.
std::string extract_string_member(std::string_view line, const std::string& field,
                                  std::string& text);

}  // namespace polysketch
