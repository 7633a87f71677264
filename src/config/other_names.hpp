// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace polysketch {

/// What a key of another trainer is called here.
struct OtherName {
  std::string key;   ///< "schedule.peak", or a section: "optimizer"
  std::string note;  ///< what differs besides the name ("in tokens: ..."); may be empty
};

/// The key that people mean who write `name` (without its section) as nanoGPT, Transformers,
/// Megatron, Lightning and others call it. Capitals, '-' and '_' make no difference.
std::optional<OtherName> other_name(std::string_view name);

}  // namespace polysketch
