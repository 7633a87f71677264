// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <utility>

#include "distributed/collectives.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// A buffer laid out like the masters, put together from the parts that each process owns, on the
/// host. Only the elements [first, second) of `wanted` are filled; memory is used for these alone,
/// and for one bucket. own_part(i): this process's part of bucket i, on the device. All processes
/// call it together.
at::Tensor gather_flat(Collectives& collectives, const Parameters& parameters,
                       const std::function<at::Tensor(size_t bucket)>& own_part,
                       std::pair<int64_t, int64_t> wanted, const std::string& what);

}  // namespace polysketch
