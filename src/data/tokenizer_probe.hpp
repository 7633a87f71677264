// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

namespace polysketch {

/// Runs `work` in a forked child, so that whatever a hostile file does to a library happens there.
/// `work` returns an empty text, or what is wrong. The result is that text; or the signal that
/// ended the child; or that it ran longer than `seconds` and was killed.
std::string probe_in_child(const std::function<std::string()>& work, int seconds);

}  // namespace polysketch
