// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace polysketch::kernels {

/// Working memory of the calling thread, at least `bytes` long, kept until the thread ends.
/// Contents are undefined.
void* thread_scratch(int64_t bytes);

template <class R>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<R*>(thread_scratch(count * static_cast<int64_t>(sizeof(R))))) {}
  R* data() const { return data_; }

 private:
  R* data_;
};

}  // namespace polysketch::kernels
