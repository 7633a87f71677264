// SPDX-License-Identifier: Apache-2.0
#include "distributed/replica_check.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <atomic>
#include <bit>
#include <map>
#include <string>

namespace polysketch {
namespace {

constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;  // 2^64 over the golden ratio

template <class T>
uint64_t hash_of(const T* bits, int64_t count) {
  std::atomic<uint64_t> sum{0};
  at::parallel_for(0, count, 1 << 16, [&](int64_t begin, int64_t end) {
    uint64_t part = 0;
    for (int64_t i = begin; i < end; ++i) {
      const uint64_t mixed =
          (static_cast<uint64_t>(bits[i]) + static_cast<uint64_t>(i) * kOdd) * kOdd;
      part += mixed ^ (mixed >> 32);
    }
    sum += part;
  });
  return sum;
}

// The same in LibTorch's operations: int64 products and sums wrap around.
uint64_t hash_on_device(const at::Tensor& bits) {
  constexpr int64_t chunk = int64_t{1} << 24;
  const auto odd = static_cast<int64_t>(kOdd);
  at::Tensor sum = at::zeros({}, bits.options().dtype(at::kLong));
  const int64_t mask = bits.scalar_type() == at::kShort ? 0xffff : 0xffffffff;
  for (int64_t begin = 0; begin < bits.numel(); begin += chunk) {
    const int64_t n = std::min(chunk, bits.numel() - begin);
    at::Tensor mixed = bits.narrow(0, begin, n).to(at::kLong).bitwise_and_(mask);
    mixed.add_(at::arange(begin, begin + n, sum.options()).mul_(odd)).mul_(odd);
    // A shift of a signed number brings in ones from above; they are masked away.
    sum.add_(
        mixed.bitwise_xor(mixed.bitwise_right_shift(32).bitwise_and_(int64_t{0xffffffff})).sum());
  }
  return static_cast<uint64_t>(sum.item<int64_t>());
}

}  // namespace

uint64_t parameter_hash(Parameters& parameters) {
  at::NoGradGuard no_grad;
  const at::Tensor& flat = parameters.flat_compute();
  const bool half = flat.element_size() == 2;
  const at::Tensor bits = flat.view(half                       ? at::kShort
                                    : flat.element_size() == 8 ? at::kLong
                                                               : at::kInt);
  if (!bits.is_cpu()) return hash_on_device(bits);
  if (half) return hash_of(static_cast<const uint16_t*>(bits.data_ptr()), bits.numel());
  if (flat.element_size() == 8)
    return hash_of(static_cast<const uint64_t*>(bits.data_ptr()), bits.numel());
  return hash_of(static_cast<const uint32_t*>(bits.data_ptr()), bits.numel());
}

void require_equal_replicas(World& world, Parameters& parameters) {
  if (world.size() == 1) return;
  const std::string own = fmt::format("{:016x}", parameter_hash(parameters));
  std::map<std::string, std::vector<int64_t>> who;
  const auto hashes = world.collectives().all_gather_text(own, "hash of the parameters");
  for (size_t rank = 0; rank < hashes.size(); ++rank)
    who[hashes[rank]].push_back(static_cast<int64_t>(rank));
  if (who.size() == 1) return;
  size_t most = 0;
  for (const auto& [hash, ranks] : who) most = std::max(most, ranks.size());
  const bool majority = 2 * most > hashes.size();
  std::string suspects;
  for (const auto& [hash, ranks] : who) {
    if (majority && ranks.size() == most) continue;
    for (const int64_t rank : ranks)
      suspects += (suspects.empty() ? "" : ", ") + world.name_of(rank);
  }
  throw UserError(
      ExitCode::hardware,
      fmt::format("the parameters of the processes are no longer equal; {} {}: suspected hardware; "
                  "do not trust checkpoints since the "
                  "last comparison, take the machine out and continue from an earlier one",
                  majority ? "different from most:" : "no value has a majority among", suspects));
}

}  // namespace polysketch
