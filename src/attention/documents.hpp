// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace polysketch {

/// Which tokens of a batch belong to the same document. Built once a batch, shared by all layers;
/// cheap to copy. Default: every row of the batch is one document.
class Documents {
 public:
  Documents() = default;

  /// ids: [B, T] int32 on the CPU; a document is a run of equal numbers within a row. Undefined:
  /// one document a row.
  explicit Documents(const at::Tensor& ids);

  bool defined() const { return layout_ != nullptr; }

  /// [B, T] int32 on the CPU: position of the first token of the token's document. Query i sees key
  /// j if starts[i] <= j <= i.
  const at::Tensor& starts() const;

  /// Lengths of the documents of each row, in order; each row adds up to T.
  const std::vector<std::vector<int64_t>>& lengths() const;

 private:
  struct Layout;
  std::shared_ptr<const Layout> layout_;
};

}  // namespace polysketch
