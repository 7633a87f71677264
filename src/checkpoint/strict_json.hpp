// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace polysketch {

/// The defect of a text that should be one JSON object, or an empty string. What a lenient parser
/// lets through and this does not: a byte order mark, NUL bytes (the parser takes one for the end),
/// anything but the allowed blanks after the closing brace. `trailing`: the bytes that may follow
/// the brace.
std::string json_object_defect(std::string_view text, std::string_view trailing);

/// Parses one JSON object. Refused: repeated keys in any object, more than 64 levels, ill-formed
/// UTF-8, anything beside the object. Throws std::invalid_argument with the defect; the caller
/// knows which file it is and adds it.
nlohmann::json parse_strict_json(std::string_view text);

}  // namespace polysketch
