// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

namespace polysketch {

/// FLOP/s of LibTorch's matrix products in this type on the CPU with the present number of threads:
/// the best that was ever measured on such a machine, a floor of what it can do. The first call of
/// a process measures for some hundredths of a second; the best so far is kept in the user's cache
/// folder, so that a machine that is busy now does not count as slow.
double measured_cpu_flops(at::ScalarType compute);

/// The higher of `measured` and what the file holds for the key, which is kept in the file. A file
/// that cannot be read or written does no harm.
double best_so_far(const std::filesystem::path& file, const std::string& key, double measured);

}  // namespace polysketch
