// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "distributed/world.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// 64 bits that change with any bit of the parameters that compute: a sum over positions, modulo
/// 2^64, of mixed (position, bits). Computed on the device where they lie; the same on any device
/// and for any number of threads.
uint64_t parameter_hash(Parameters& parameters);

/// Compares the parameters of all processes, which must be equal bit for bit. Throws UserError 82
/// on every process, naming those in the minority (all, if no value has a majority): a GPU or CPU
/// that computes wrongly, or memory that loses bits.
void require_equal_replicas(World& world, Parameters& parameters);

}  // namespace polysketch
