// SPDX-License-Identifier: Apache-2.0
#include "distributed/gather_flat.hpp"

#include <ATen/ATen.h>

#include <algorithm>

namespace polysketch {

at::Tensor gather_flat(Collectives& collectives, const Parameters& parameters,
                       const std::function<at::Tensor(size_t bucket)>& own_part,
                       std::pair<int64_t, int64_t> wanted, const std::string& what) {
  at::NoGradGuard no_grad;
  const auto& buckets = parameters.buckets();
  const int64_t size = buckets.empty() ? 0 : buckets.front().end;
  // Pages that are never written are never given memory.
  at::Tensor flat = at::empty({size}, at::TensorOptions().dtype(parameters.master_type()));
  for (size_t i = 0; i < buckets.size(); ++i) {
    const at::Tensor own = own_part(i);
    const at::Tensor whole = at::empty({buckets[i].count()}, own.options());
    collectives.all_gather(whole, own, what + " " + std::to_string(i))->wait();
    const int64_t begin = std::max(wanted.first, buckets[i].begin),
                  end = std::min(wanted.second, buckets[i].end);
    if (begin < end)
      flat.narrow(0, begin, end - begin)
          .copy_(whole.narrow(0, begin - buckets[i].begin, end - begin));
  }
  return flat;
}

}  // namespace polysketch
