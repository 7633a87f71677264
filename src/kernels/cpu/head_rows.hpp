// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace polysketch::kernels {

/// Rows of one head: [T, D]. The D elements of a row lie side by side.
template <class T>
struct HeadRows {
  T* data = nullptr;
  int64_t stride = 0;  ///< elements from one row to the next
};

}  // namespace polysketch::kernels
