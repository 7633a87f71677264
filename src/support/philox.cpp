// SPDX-License-Identifier: Apache-2.0
#include "support/philox.hpp"

#include <cmath>

#include "support/error.hpp"

namespace polysketch {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xd2511f53} * counter[0];
    const uint64_t product1 = uint64_t{0xcd9e8d57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9e3779b9;  // Weyl sequence of the golden ratio
    key[1] += 0xbb67ae85;  // and of sqrt(3) - 1
  }
  return counter;
}

// Counter words: block number (low), stream (low, high), purpose in 8 bits with the block number's
// high 24 bits above it.
Philox::Philox(uint64_t seed, RandomPurpose purpose, uint64_t stream)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      counter_{0, static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32),
               static_cast<uint32_t>(purpose)} {}

uint32_t Philox::next_u32() {
  if (used_ == 4) {
    block_ = philox4x32(counter_, key_);
    if (++counter_[0] == 0) counter_[3] += 1u << 8;
    used_ = 0;
  }
  return block_[static_cast<size_t>(used_++)];
}

uint64_t Philox::next_u64() {
  const uint64_t low = next_u32();
  return uint64_t{next_u32()} << 32 | low;
}

double Philox::uniform() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }

uint64_t Philox::bounded(uint64_t bound) {
  require(bound >= 1, "Philox::bounded needs a bound of at least 1");
  using Wide = unsigned __int128;
  Wide product = Wide{next_u64()} * bound;
  if (static_cast<uint64_t>(product) < bound) {
    // 2^64 mod bound: how many low halves would appear once too often
    const uint64_t rejected = (0 - bound) % bound;
    while (static_cast<uint64_t>(product) < rejected) product = Wide{next_u64()} * bound;
  }
  return static_cast<uint64_t>(product >> 64);
}

double Philox::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));  // 1 - u is never 0
  const double angle = 6.283185307179586476925286766559 * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

IndexPermutation::IndexPermutation(uint64_t size, uint64_t seed, RandomPurpose purpose,
                                   uint64_t stream)
    : size_(size), half_bits_(1) {
  while (half_bits_ < 32 && (uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
  Philox random(seed, purpose, stream);
  for (auto& key : round_keys_) key = random.next_u32();
}

uint64_t IndexPermutation::operator()(uint64_t position) const {
  require(position < size_, "IndexPermutation: position outside the range");
  const uint32_t mask = half_bits_ == 32 ? ~uint32_t{0} : (uint32_t{1} << half_bits_) - 1;
  // The network permutes 0 … 4^half_bits - 1. Following its cycle until it comes back below `size`
  // permutes 0 … size - 1; the domain is less than four times as large, so fewer than four turns
  // are expected.
  do {
    auto left = static_cast<uint32_t>(position >> half_bits_);
    auto right = static_cast<uint32_t>(position) & mask;
    for (const uint32_t key : round_keys_) {
      uint32_t mixed = right ^ key;
      mixed = (mixed ^ mixed >> 16) * 0x7feb352d;
      mixed = (mixed ^ mixed >> 15) * 0x846ca68b;
      mixed ^= mixed >> 16;
      const uint32_t next = left ^ (mixed & mask);
      left = right;
      right = next;
    }
    position = uint64_t{left} << half_bits_ | right;
  } while (position >= size_);
  return position;
}

}  // namespace polysketch
