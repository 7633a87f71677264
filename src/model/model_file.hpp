// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/peers.hpp"
#include "checkpoint/tensor_set.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// A flat buffer laid out like the masters (masters themselves, or a moment), whose tensors are
/// saved under `first` + parameter name.
using NamedBuffer = std::pair<std::string, at::Tensor>;

/// One entry for every parameter of every buffer, with data where this process is the one to write
/// it (share_out): only that is copied to the host, if it is not there. The group keeps what it
/// points into alive. The rest of the buffers need not be up to date.
TensorGroup tensor_group(const std::string& name, const Parameters& parameters,
                         const std::vector<NamedBuffer>& buffers, const Peers& peers);

/// Elements [first, second) of each of `buffers` buffers that process `rank` of `world` writes,
/// from the first of a parameter to the last of another; 0, 0 if none. What tensor_group() reads.
std::vector<std::pair<int64_t, int64_t>> written_elements(const Parameters& parameters,
                                                          at::ScalarType type, size_t buffers,
                                                          int64_t rank, int64_t world);

/// Gives each parameter's entry of a checkpoint to `take`, [shape] on the host, in the type of the
/// masters. Throws UserError 81 listing up to ten tensors that are missing, superfluous (with this
/// prefix) or of another shape or type, and 81 when a value is not finite.
void load_tensors(const Parameters& parameters, const TensorSet& set, const std::string& prefix,
                  const std::function<void(size_t index, const at::Tensor& value)>& take);

}  // namespace polysketch
