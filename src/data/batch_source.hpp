// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace polysketch {

/// Some rows of the global sequence of training windows.
struct Batch {
  int64_t first_sequence = 0;  ///< global number of row 0; rows are consecutive in the global order
  int64_t rows = 0;            ///< B; 0: a stop was asked for while waiting
  int64_t context = 0;         ///< T
  std::vector<int32_t> ids;    ///< [B, T + 1]; inputs are [:, :-1], targets [:, 1:]
  /// [B, T + 1], number of the document within the row, non-decreasing; empty unless asked for
  std::vector<int32_t> documents;
  /// sum over rows of the 64-bit hash of (global sequence number, ids of the row), modulo 2^64
  uint64_t digest = 0;
};

/// Where the batches of a training step come from.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// The next rows of this process. Waits if they are not ready.
  virtual Batch next() = 0;
  virtual double seconds_waited() const = 0;  ///< total time next() had to wait
};

}  // namespace polysketch
