// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace polysketch {

/// First key that each query sees, [B, T] int32, non-decreasing along a row: query i sees key j if
/// first[i] <= j <= i. Undefined: every row is seen from its beginning.
struct FirstKeys {
  at::Tensor host;    ///< on the CPU
  at::Tensor device;  ///< the same beside the queries
  bool defined() const { return host.defined(); }
};

/// Which tokens of a batch belong to the same document. Built once a batch, shared by all layers;
/// cheap to copy, and copies share what was computed of it. Default: every row of the batch is one
/// document.
class Documents {
 public:
  Documents();

  /// ids: [B, T] int32 on the CPU; a document is a run of equal numbers within a row. Undefined:
  /// one document a row.
  explicit Documents(const at::Tensor& ids);

  bool defined() const;

  /// [B, T] int32 on the CPU: position of the first token of the token's document. Query i sees key
  /// j if starts[i] <= j <= i.
  const at::Tensor& starts() const;

  /// Lengths of the documents of each row, in order; each row adds up to T.
  const std::vector<std::vector<int64_t>>& lengths() const;

  /// starts() for queries on `device`; undefined without documents.
  FirstKeys first_keys(const at::Device& device) const;

  /// First key that a query sees inside its own block; blocks have `block` positions and are
  /// counted from where a document begins. like: [B, H, T, ·]. Computed once for each block length,
  /// also where every row is one document.
  FirstKeys block_first_keys(int64_t block, const at::Tensor& like) const;

 private:
  struct Layout;
  std::shared_ptr<Layout> layout_;
};

}  // namespace polysketch
