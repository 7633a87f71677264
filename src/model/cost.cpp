// SPDX-License-Identifier: Apache-2.0
#include "model/cost.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "attention/attention.hpp"
#include "support/units.hpp"

namespace polysketch {

ModelCost model_cost(const ModelConfig& model, const AttentionConfig& attention_config,
                     Precision precision, int64_t context, int64_t micro_batch_tokens) {
  const int64_t c = model.width, g = model.hidden, v = model.vocabulary, l = model.layers;
  const auto attention = make_attention(attention_config, {model.heads, c / model.heads});
  int64_t attention_parameters = 0;
  for (const AttentionParameter& parameter : attention->parameters())
    attention_parameters += parameter.value.numel();
  const int64_t matrices = 4 * c * c + 3 * c * g;  // qkv, out; up (linear and gate), down

  ModelCost cost;
  cost.embedding_parameters = v * c + v;
  cost.parameters =
      cost.embedding_parameters + l * (matrices + attention_parameters + 4 * c) + 2 * c;

  const AttentionCost pair = attention->cost(context);
  const double dense = 6.0 * static_cast<double>(l * matrices + v * c);
  const double per_token = static_cast<double>(l) / static_cast<double>(context);
  cost.flops_per_token = dense + per_token * (pair.forward.full + pair.backward.full);
  cost.flops_per_token_causal = dense + per_token * (pair.forward.causal + pair.backward.causal);

  const int64_t element = precision == Precision::bf16 ? 2 : 4;
  cost.weight_bytes = cost.parameters * (4 + (precision == Precision::bf16 ? 2 : 0));
  cost.gradient_bytes = 4 * cost.parameters;
  cost.optimizer_bytes = 8 * cost.parameters;
  cost.checkpoint_bytes = 12 * cost.parameters;

  // A block keeps the two sums of the residual stream in fp32, the two normalised inputs, the
  // joined heads, the pre-activations of the gated unit and what the attention keeps; statistics of
  // the norms are small change. The joined heads share memory with the attention's output.
  const int64_t sequences = std::max<int64_t>(1, micro_batch_tokens / context);
  const int64_t rows = sequences * context;
  const int64_t block = rows * (2 * c * 4 + (2 * c + 2 * g) * element + 4 * 4) +
                        sequences * pair.saved_bytes(element);
  const int64_t logits = std::min<int64_t>(rows, 1024) * v * element;
  const int64_t tables = context * (c + c / model.heads) * 4;  // of positions and rotations
  // At the head: the normalised output, what the norm saw, the gradient of the one and a chunk of
  // logits.
  const int64_t head = rows * c * (4 + 2 * element) + logits;
  cost.activation_bytes =
      (model.recompute ? l * rows * c * 4 + std::max(block, head) : l * block + head) + tables;
  // In the gated unit: the residual stream, what the two norms and the attention gave, the
  // pre-activations and their product.
  cost.forward_bytes =
      std::max(rows * (c * 4 + (3 * c + 3 * g) * element), rows * c * (4 + element) + logits) +
      tables;
  return cost;
}

std::optional<std::string> unused_rows(const ModelConfig& model, int64_t pieces) {
  const int64_t unused = model.vocabulary - pieces;
  if (unused < 128 || model.vocabulary == (pieces + 255) / 256 * 256) return std::nullopt;
  return fmt::format(
      "model.vocabulary: {} rows for the tokenizer's {} pieces: {:.0f} % of the rows are never "
      "used "
      "and cost {} parameters; {} would do",
      model.vocabulary, pieces,
      100.0 * static_cast<double>(unused) / static_cast<double>(model.vocabulary),
      format_count(unused * (model.width + 1)), pieces);
}

double WorkOrder::flops_per_token() const {
  double sum = forward_flops_per_token;
  for (const WorkPiece& piece : backward) sum += piece.flops_per_token;
  return sum;
}

WorkOrder work_order(const ModelConfig& model, const AttentionConfig& attention_config,
                     int64_t context) {
  const int64_t c = model.width, g = model.hidden, v = model.vocabulary;
  const auto attention = make_attention(attention_config, {model.heads, c / model.heads});
  const AttentionCost pair = attention->cost(context);
  const double matrices = static_cast<double>(4 * c * c + 3 * c * g),
               tokens = static_cast<double>(context);
  const double forward = 2 * matrices + pair.forward.full / tokens;

  WorkPiece block{.flops_per_token =
                      4 * matrices + pair.backward.full / tokens + (model.recompute ? forward : 0),
                  .gradients = {c * g, 2 * c * g, c, c, c * c}};  // down, up, second norm, output
  std::vector<int64_t> learned;
  for (const AttentionParameter& parameter : attention->parameters())
    learned.push_back(parameter.value.numel());
  block.gradients.insert(block.gradients.end(), learned.rbegin(), learned.rend());
  block.gradients.insert(block.gradients.end(), {3 * c * c, c, c});

  WorkOrder order;
  order.forward_flops_per_token = static_cast<double>(model.layers) * forward;
  // logit bias, final norm
  order.backward.push_back(
      {.flops_per_token = 6 * static_cast<double>(v * c), .gradients = {v, c, c}});
  order.backward.insert(order.backward.end(), static_cast<size_t>(model.layers), block);
  // a sum of rows: no products
  order.backward.push_back({.flops_per_token = 0, .gradients = {v * c}});
  return order;
}

}  // namespace polysketch
