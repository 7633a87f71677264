// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace polysketch {

/// What a model costs, from its configuration alone: the one source for `plan`, MFU and the
/// benchmarks.
/// FLOPs count multiplications and additions of matrix products (two for each fused pair), forward
/// and backward, without recomputation.
struct ModelCost {
  int64_t parameters = 0;            ///< all trainable numbers
  int64_t embedding_parameters = 0;  ///< E and the logit bias
  double flops_per_token =
      0;  ///< 6 · (matrix parameters, the tied head included) + attention with all T × T pairs
  double flops_per_token_causal = 0;  ///< the same with the T(T+1)/2 pairs that exist
  int64_t weight_bytes = 0;           ///< fp32 masters and the copies that compute
  int64_t gradient_bytes = 0;         ///< fp32
  int64_t optimizer_bytes = 0;        ///< two fp32 moments
  int64_t activation_bytes = 0;  ///< of one micro-batch: kept for backward, and what the head takes
  int64_t forward_bytes =
      0;  ///< what a forward of one micro-batch takes at most where nothing is kept for backward
  int64_t checkpoint_bytes = 0;

  int64_t model_bytes() const { return weight_bytes + gradient_bytes + optimizer_bytes; }
  int64_t training_bytes() const { return model_bytes() + activation_bytes; }
  int64_t evaluation_bytes() const {
    return weight_bytes + gradient_bytes + forward_bytes;
  }  ///< the gradients' place exists all the same
};

/// micro_batch_tokens: tokens of one forward and backward.
ModelCost model_cost(const ModelConfig& model, const AttentionConfig& attention,
                     Precision precision, int64_t context, int64_t micro_batch_tokens);

/// What to say of a vocabulary that is larger than the tokenizer's `pieces`: which share of the
/// rows is never used and what they cost. Nothing where the padding is usual: fewer than 128 rows,
/// or up to the next multiple of 256.
std::optional<std::string> unused_rows(const ModelConfig& model, int64_t pieces);

/// A piece of the work of one micro-batch, and the gradients that are complete when it is done.
struct WorkPiece {
  double flops_per_token = 0;
  /// numbers in each parameter, in the order in which Transformer::forward_backward reports them
  std::vector<int64_t> gradients;
};

/// The work of one micro-batch in the order in which Transformer::forward_backward does it, all T ×
/// T pairs counted, blocks that are computed again (model.recompute) included. Without them the sum
/// is ModelCost::flops_per_token.
struct WorkOrder {
  /// of the blocks; the head's products stand in the first piece, since loss and gradient go
  /// together
  double forward_flops_per_token = 0;
  std::vector<WorkPiece>
      backward;  ///< head, final norm, blocks from the last to the first, embedding
  double flops_per_token() const;  ///< of everything
};
WorkOrder work_order(const ModelConfig& model, const AttentionConfig& attention, int64_t context);

}  // namespace polysketch
