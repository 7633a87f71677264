// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/transformer.hpp"

namespace polysketch {

/// How the next token is drawn from the model's distribution.
struct SamplingOptions {
  int64_t tokens = 128;    ///< most tokens to add
  double temperature = 1;  ///< 0: the most probable token, always
  int64_t top_k = 0;       ///< only the k most probable; 0: all
  double top_p = 1;        ///< only the smallest set of most probable tokens that holds this share
  uint64_t seed = 1;
  /// length of training: softmax and polynomial models see at most the last so many tokens
  int64_t context = 1024;
  int32_t stop = -1;  ///< ends at this token (not added); -1: never
};

/// Picks an id from logits [V]; `uniform` in [0, 1) decides. A pure function, so that a text is
/// reproduced by its seed.
int32_t sample(const std::vector<float>& logits, const SamplingOptions& options, double uniform);

/// Continues `prompt` (at least one id of the tokenizer's `pieces`) by the recurrent form of the
/// model: each token costs the same, whatever went before, but for softmax and polynomial models,
/// which keep every key, and past the length of training look at a window that is read anew for
/// each token. A model may have more rows than the tokenizer has pieces; they are taken out before
/// anything is drawn, so that no setting gives an id without a piece. `on_token` sees every new id
/// and ends generation by returning false. Returns the new ids.
std::vector<int32_t> generate(Transformer& model, int64_t pieces,
                              const std::vector<int32_t>& prompt, const SamplingOptions& options,
                              const std::function<bool(int32_t)>& on_token = {});

}  // namespace polysketch
