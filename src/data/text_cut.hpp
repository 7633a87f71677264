// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

namespace polysketch {

/// Where to cut a text that goes on, in (0, size]: after the last line end, else after the last
/// blank, else between two characters.
inline size_t cut_position(std::string_view text) {
  for (const char separator : {'\n', ' '}) {
    if (const size_t at = text.rfind(separator); at != std::string_view::npos) return at + 1;
  }
  size_t at = text.size();
  while (at > 1 && at + 3 > text.size() &&
         (static_cast<unsigned char>(text[at - 1]) & 0xC0) == 0x80)
    --at;
  return at > 1 ? at - 1 : text.size();
}

}  // namespace polysketch
