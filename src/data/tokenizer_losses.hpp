// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace polysketch {

/// What `round_trip` (encoding and decoding) does not give back, in words for people; empty when
/// all of these texts come back: every character of the Basic Multilingual Plane but NUL, side by
/// side, before blanks and behind U+2581; every 257th of the other planes; white space of all kinds
/// at all places; and `samples`.
std::vector<std::string> find_losses(
    const std::function<std::string(const std::string&)>& round_trip,
    const std::vector<std::string>& samples);

}  // namespace polysketch
