// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace polysketch {

/// What became of the member that was looked for.
struct ExtractedMember {
  std::string error;     ///< why there is no text; empty: there is one
  bool is_null = false;  ///< of an `error`: the member is there and null
};

/// Checks that `line` is one JSON object (RFC 8259, nested at most 1000 deep; NaN and Infinity,
/// which Python writes, are taken for numbers) and puts its string member `field` into `text`. An
/// error is: not JSON and where, member missing, null, not a string, twice, with a lone surrogate
/// escape. Other members may hold anything and stand there twice. UTF-8 is not checked here.
///
/// Own code, since the Arrow and Parquet libraries of the wheel export a simdjson of their own: a
/// second version in the same process takes part of its functions from theirs and crashes.
ExtractedMember extract_string_member(std::string_view line, const std::string& field,
                                      std::string& text);

}  // namespace polysketch
