// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

namespace polysketch {

/// Philox4x32-10 (Salmon et al. 2011): 128 random bits as a pure function of a key and a counter.
/// Nothing has to be saved to continue a sequence, and draws do not depend on the number of threads
/// or processes.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// What random numbers are drawn for. Part of every counter, so that two purposes never share a
/// draw.
enum class RandomPurpose : uint32_t {
  parameters = 1,
  sketch = 2,
  dropout = 3,
  file_order = 4,
  document_order = 5,
  window_order = 6,
  sampling = 7,
  generation = 8,
  test = 9,
  diagnostics = 10,
};

/// A stream of random numbers named by (seed, purpose, stream): the k-th draw is a pure function of
/// these and k.
/// The mappings to doubles, bounded integers and normals are fixed here, since the standard
/// library's are not.
class Philox {
 public:
  Philox(uint64_t seed, RandomPurpose purpose, uint64_t stream = 0);

  uint32_t next_u32();
  uint64_t next_u64();
  /// Uniform in [0, 1), 53 bits.
  double uniform();
  /// Uniform in [0, bound), bound >= 1, without bias (Lemire's method with rejection).
  uint64_t bounded(uint64_t bound);
  /// Standard normal (Box-Muller; both values of a pair are used in turn).
  double normal();

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
  bool has_spare_ = false;
  double spare_ = 0;
};

/// A permutation of 0 … size-1 with random access: position -> element in O(1) time and memory.
/// A keyed Feistel network over the next power of four, cycle-walked back into the range.
class IndexPermutation {
 public:
  IndexPermutation(uint64_t size, uint64_t seed, RandomPurpose purpose, uint64_t stream = 0);
  uint64_t operator()(uint64_t position) const;  ///< position < size
  uint64_t size() const { return size_; }

 private:
  uint64_t size_;
  uint32_t half_bits_;
  std::array<uint32_t, 8> round_keys_;
};

}  // namespace polysketch
