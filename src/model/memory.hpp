// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "config/config.hpp"

namespace polysketch {

// Asked before anything large is made: whether the work fits into `available` bytes
// (available_memory_bytes) by the formula of `polysketch plan` (cost.hpp), which leaves out small
// change, so that nothing is refused that fits.

/// Training with micro-batches of `sequences` windows, on one of `shards` processes that share the
/// optimiser. Throws UserError 78 that names the keys to change, the bytes needed and those
/// available.
void require_training_memory(const Config& config, int64_t sequences, int64_t available,
                             int64_t shards = 1);

/// Losses of `sequences` windows of `context` tokens at a time.
void require_evaluation_memory(const Config& config, int64_t context, int64_t sequences,
                               int64_t available);

}  // namespace polysketch
