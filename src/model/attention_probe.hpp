// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "attention/attention.hpp"

namespace polysketch {

/// Copies of what a few queries of one document see, one head a layer, taken while a micro-batch
/// goes through the model and looked at later. Taking them changes nothing that is computed: n
/// query rows and the keys of one document and head are copied for each layer.
class AttentionProbe {
 public:
  static constexpr int64_t kQueries = 32;  ///< at most

  /// Sequence, document (that of a random position), query positions within it and heads: a pure
  /// function of seed, step, the shape and the documents.
  AttentionProbe(uint64_t seed, int64_t step, int64_t layers, int64_t heads, int64_t batch,
                 int64_t length, const Documents& documents);

  /// q, k [B, H, T, D] of a layer, after rotary embedding. Only the first call for a layer counts.
  void take(size_t layer, const at::Tensor& q, const at::Tensor& k);

  struct Layer {
    int64_t head = 0;
    at::Tensor queries;  ///< [1, 1, n, D]; undefined before take()
    at::Tensor keys;     ///< [1, 1, length of the document, D]
  };
  const std::vector<Layer>& layers() const { return layers_; }
  const at::Tensor& positions() const {
    return positions_;
  }  ///< [n] int64 on the CPU, within the document, ascending

 private:
  int64_t row_, first_ = 0, length_;  ///< the document
  at::Tensor positions_;
  std::vector<Layer> layers_;
};

}  // namespace polysketch
