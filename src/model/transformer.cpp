// SPDX-License-Identifier: Apache-2.0
#include "model/transformer.hpp"
#include "model/ops/cross_entropy.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "model/matmul.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

// Rows of logits that exist at one time: enough for the matrix products to run at full speed, and
// 64 MB of bf16 at V = 32,000.
constexpr int64_t kHeadRows = 1024;

// Tokens of a text that are read at one time: what is computed on the way takes no more memory for
// a longer text.
constexpr int64_t kPrefillTokens = 4096;

}  // namespace

/// Where a block's parameters lie, and its attention.
struct Transformer::Block {
  size_t gain1, bias1, qkv, out, gain2, bias2, up, down;
  std::unique_ptr<Attention> attention;
  std::vector<size_t> attention_parameters;
};

/// What backward of one block needs. With model.recompute only x1 is kept and the rest is made
/// again.
struct Transformer::Activations {
  Activations() = default;
  explicit Activations(at::Tensor x) : x1(std::move(x)) {}
  at::Tensor x1, x2;  ///< [N, C] wide: what the two norms saw
  ops::Normalized norm1, norm2;
  std::array<at::Tensor, 3> qkv;  ///< q, k, v [B, H, T, D], leaves of the attention's own graph
  at::Tensor attended;            ///< [B, H, T, D], root of that graph
  at::Tensor joined;              ///< [N, C] the same, heads joined
  at::Tensor pre;                 ///< [N, 2G]
};

Transformer::Transformer(Transformer&&) noexcept = default;
Transformer::~Transformer() = default;

Transformer::Transformer(const Options& options) : options_(options) {
  at::NoGradGuard no_grad;
  const ModelConfig& m = options_.model;
  require(m.layers > 0 && m.width > 0 && m.heads > 0 && m.hidden > 0 && m.width % m.heads == 0,
          "Transformer: sizes are not resolved");
  const AttentionShape shape{m.heads, m.width / m.heads};
  embedding_ =
      parameters_.add("embedding.weight", {m.vocabulary, m.width}, Initializer::embedding, true);
  for (int64_t layer = 0; layer < m.layers; ++layer) {
    const auto add = [&](const std::string& name, std::vector<int64_t> extents,
                         Initializer initializer, bool forward_wide = true) {
      const bool matrix = extents.size() > 1;
      return parameters_.add(fmt::format("blocks.{}.{}", layer, name), std::move(extents),
                             initializer, matrix, forward_wide);
    };
    Block block;
    block.gain1 = add("norm1.gain", {m.width}, Initializer::ones);
    block.bias1 = add("norm1.bias", {m.width}, Initializer::zeros);
    block.qkv =
        add("attention.qkv.weight", {3 * m.width, m.width}, Initializer::lecun_normal, false);
    block.attention = make_attention(
        options_.attention, shape, at::TensorOptions().dtype(options_.wide).device(options_.device),
        {options_.seed, layer});
    for (const AttentionParameter& parameter : block.attention->parameters()) {
      const bool ones = parameter.value.dim() == 1 && parameter.value[0].item<double>() == 1;
      const Initializer start = parameter.value.dim() > 1 ? Initializer::lecun_normal
                                : ones                    ? Initializer::ones
                                                          : Initializer::zeros;
      block.attention_parameters.push_back(
          add("attention." + parameter.name, parameter.value.sizes().vec(), start));
    }
    block.out = add("attention.out.weight", {m.width, m.width}, Initializer::lecun_normal, false);
    block.gain2 = add("norm2.gain", {m.width}, Initializer::ones);
    block.bias2 = add("norm2.bias", {m.width}, Initializer::zeros);
    block.up = add("glu.up.weight", {2 * m.hidden, m.width}, Initializer::lecun_normal, false);
    block.down = add("glu.down.weight", {m.width, m.hidden}, Initializer::lecun_normal, false);
    blocks_.push_back(std::move(block));
  }
  final_gain_ = parameters_.add("norm.gain", {m.width}, Initializer::ones, false);
  final_bias_ = parameters_.add("norm.bias", {m.width}, Initializer::zeros, false);
  logit_bias_ = parameters_.add("logit_bias", {m.vocabulary}, Initializer::zeros, false);
  parameters_.allocate(options_.device, options_.compute, options_.wide, options_.sharding);
  for (Block& block : blocks_) {
    std::vector<AttentionParameter> learned = block.attention->parameters();
    for (size_t i = 0; i < learned.size(); ++i)
      learned[i].value.set_data(parameters_.master(block.attention_parameters[i]));
  }
  if (options_.initialize) parameters_.initialize(options_.seed);
}

Attention& Transformer::attention(int64_t layer) {
  return *blocks_.at(static_cast<size_t>(layer)).attention;
}

void Transformer::at_step(int64_t step) {
  for (const Block& block : blocks_) block.attention->at_step(step);
}

void Transformer::grow_tables(int64_t length) {
  if (positions_.defined() && positions_.size(0) >= length) return;
  // a text that grows by single tokens
  if (positions_.defined()) length = std::max(length, 2 * positions_.size(0));
  const auto wide = at::TensorOptions().dtype(options_.wide).device(options_.device);
  rotary_ = ops::rotary_table(length, options_.model.width / options_.model.heads, wide);
  positions_ = ops::sinusoidal_table(length, options_.model.width, wide);
}

// Of the input alone: the tied weight of the output is taken as it is.
double Transformer::embedding_scale() const {
  return options_.model.embedding_scale == EmbeddingScale::sqrt_width
             ? std::sqrt(static_cast<double>(options_.model.width))
             : 1;
}

Transformer::Stream Transformer::embed(const ModelInput& input, int64_t first_position) {
  const int64_t length = input.ids.size(1);
  grow_tables(first_position + length);
  return {ops::embed(parameters_.master(embedding_), input.ids.reshape({-1}),
                     positions_.narrow(0, first_position, length), embedding_scale()),
          {}};
}

at::Tensor Transformer::attend(size_t layer, const at::Tensor& normalized, const ModelInput& input,
                               Activations* keep, DecodeState* decode) {
  const Block& block = blocks_[layer];
  const int64_t batch = input.ids.size(0), first = decode == nullptr ? 0 : decode->length;
  const auto rows = [&](const at::Tensor& x) { return x.narrow(0, first, input.ids.size(1)); };
  auto qkv = ops::split_rotate(dense(normalized, parameters_.compute(block.qkv)), batch,
                               options_.model.heads, {rows(rotary_.cos), rows(rotary_.sin)});
  if (decode != nullptr)
    return ops::merge_heads(
        block.attention->prefill(*decode->layers[layer], qkv[0], qkv[1], qkv[2]));
  if (keep == nullptr)
    return ops::merge_heads(block.attention->forward(qkv[0], qkv[1], qkv[2], input.documents));
  if (input.probe != nullptr) input.probe->take(layer, qkv[0], qkv[1]);
  at::AutoGradMode enable(true);
  for (at::Tensor& part : qkv) part.requires_grad_(true);
  keep->attended = block.attention->forward(qkv[0], qkv[1], qkv[2], input.documents);
  keep->qkv = qkv;
  return ops::merge_heads(keep->attended.detach());
}

Transformer::Stream Transformer::run_block(size_t layer, const Stream& in, const ModelInput& input,
                                           Activations* keep, DecodeState* decode) {
  const Block& block = blocks_[layer];
  const int64_t batch = input.ids.size(0);
  const double rate = keep == nullptr ? 0 : options_.model.dropout;  // training only
  const auto site = static_cast<int64_t>(2 * layer);
  const bool in_place = keep == nullptr;
  const auto norm = [&](const at::Tensor& x, const at::Tensor& delta, size_t gain,
                        size_t bias) -> std::pair<at::Tensor, ops::Normalized> {
    const at::Tensor g = parameters_.master(gain), b = parameters_.master(bias);
    if (!delta.defined()) return {x, ops::layer_norm(x, g, b, options_.compute)};
    return ops::add_layer_norm(x, delta, g, b, in_place);
  };

  auto [x1, norm1] = norm(in.x, in.delta, block.gain1, block.bias1);
  at::Tensor joined = attend(layer, norm1.y, input, keep, decode);
  at::Tensor attention_out = dense(joined, parameters_.compute(block.out));
  ops::dropout(attention_out, rate, input.dropout, batch, site);

  auto [x2, norm2] = norm(x1, attention_out, block.gain2, block.bias2);
  at::Tensor pre = dense(norm2.y, parameters_.compute(block.up));
  at::Tensor glu_out = dense(ops::glu(pre), parameters_.compute(block.down));
  ops::dropout(glu_out, rate, input.dropout, batch, site + 1);

  if (keep != nullptr) {
    keep->x1 = x1;
    keep->norm1 = norm1;
    keep->joined = joined;
    keep->x2 = x2;
    keep->norm2 = norm2;
    keep->pre = pre;
  }
  return {x2, glu_out};
}

void Transformer::add_weight_gradient(size_t index, const at::Tensor& d_out, const at::Tensor& in) {
  add_dense_gradient(parameters_.gradient(index), d_out, in);
}

void Transformer::backward_attention(const Block& block, Activations& kept, const ModelInput& input,
                                     const at::Tensor& d_out, at::Tensor& d_normalized) {
  add_weight_gradient(block.out, d_out, kept.joined);
  kept.joined.reset();
  at::Tensor d_attended = ops::split_heads(dense_backward(d_out, parameters_.compute(block.out)),
                                           input.ids.size(0), options_.model.heads);
  std::vector<at::Tensor> leaves(kept.qkv.begin(), kept.qkv.end());
  for (const AttentionParameter& parameter : block.attention->parameters())
    leaves.push_back(parameter.value);
  auto gradients = torch::autograd::grad({kept.attended}, leaves, {d_attended},
                                         /*retain_graph=*/false, /*create_graph=*/false,
                                         /*allow_unused=*/true);
  kept.attended.reset();
  kept.qkv = {};
  for (size_t i = 0; i < block.attention_parameters.size(); ++i) {
    if (gradients[3 + i].defined())
      parameters_.gradient(block.attention_parameters[i]).add_(gradients[3 + i]);
  }
  at::Tensor d_qkv = ops::merge_rotate_backward(gradients[0], gradients[1], gradients[2], rotary_);
  add_weight_gradient(block.qkv, d_qkv, kept.norm1.y);
  d_normalized = dense_backward(d_qkv, parameters_.compute(block.qkv));
}

// d_residual [N, C] wide: gradient of the block's output, replaced by that of its input; d_compute:
// the same in the compute type.
void Transformer::backward_block(size_t layer, Activations& kept, const ModelInput& input,
                                 at::Tensor& d_residual, at::Tensor& d_compute) {
  const Block& block = blocks_[layer];
  const int64_t batch = input.ids.size(0);
  const double rate = options_.model.dropout;
  const auto site = static_cast<int64_t>(2 * layer);
  const auto dropped = [&](const at::Tensor& d, int64_t where) {
    if (rate == 0) return d;
    at::Tensor masked = d.clone();
    ops::dropout(masked, rate, input.dropout, batch, where);
    return masked;
  };

  at::Tensor d_glu = dropped(d_compute, site + 1);
  // d_out of the unit first, then its output
  at::Tensor activated = dense_backward(d_glu, parameters_.compute(block.down));
  ops::glu_backward(kept.pre, activated);
  add_weight_gradient(block.down, d_glu, activated);
  activated.reset();
  add_weight_gradient(block.up, kept.pre, kept.norm2.y);
  at::Tensor d_normalized = dense_backward(kept.pre, parameters_.compute(block.up));
  kept.pre.reset();
  d_compute = ops::layer_norm_backward(
      d_normalized, kept.x2, kept.norm2, parameters_.master(block.gain2), d_residual,
      parameters_.gradient(block.gain2), parameters_.gradient(block.bias2));
  kept.x2.reset();
  kept.norm2 = {};

  backward_attention(block, kept, input, dropped(d_compute, site), d_normalized);
  d_compute = ops::layer_norm_backward(
      d_normalized, kept.x1, kept.norm1, parameters_.master(block.gain1), d_residual,
      parameters_.gradient(block.gain1), parameters_.gradient(block.bias1));
}

std::pair<at::Tensor, ops::Normalized> Transformer::final_norm(const Stream& stream,
                                                               bool in_place) {
  return ops::add_layer_norm(stream.x, stream.delta, parameters_.master(final_gain_),
                             parameters_.master(final_bias_), in_place);
}

// Loss and gradient of the tied output in chunks of rows: the logits of a chunk become their own
// gradient in place.
at::Tensor Transformer::head_backward(const at::Tensor& normalized, const ModelInput& input,
                                      double scale, at::Tensor& d_normalized) {
  const at::Tensor weight = parameters_.compute(embedding_);
  at::Tensor targets = input.targets.reshape({-1}), d_bias = parameters_.gradient(logit_bias_);
  d_normalized = at::empty_like(normalized);
  at::Tensor total =
      at::zeros({}, at::TensorOptions().dtype(options_.wide).device(options_.device));
  const int64_t rows = normalized.size(0);
  for (int64_t begin = 0; begin < rows; begin += kHeadRows) {
    const int64_t count = std::min(kHeadRows, rows - begin);
    at::Tensor chunk = normalized.narrow(0, begin, count);
    at::Tensor logits = dense(chunk, weight);  // [R, V]
    total += ops::cross_entropy({logits, parameters_.master(logit_bias_),
                                 targets.narrow(0, begin, count), scale, d_bias})
                 .sum();
    d_normalized.narrow(0, begin, count).copy_(dense_backward(logits, weight));
    add_weight_gradient(embedding_, logits, chunk);
  }
  return total;
}

at::Tensor Transformer::forward_backward(const ModelInput& input, double scale,
                                         const std::function<void(size_t)>& gradient_ready) {
  at::NoGradGuard no_grad;
  const auto ready = [&](size_t index) {
    if (gradient_ready) gradient_ready(index);
  };
  const bool recompute = options_.model.recompute;
  std::vector<Activations> kept(blocks_.size());
  Stream stream = embed(input);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    stream = run_block(layer, stream, input, &kept[layer]);
    if (recompute) kept[layer] = Activations(kept[layer].x1);
  }
  auto [x, normalized] = final_norm(stream, /*in_place=*/false);
  stream = {};

  at::Tensor d_normalized;
  at::Tensor loss = head_backward(normalized.y, input, scale, d_normalized);
  ready(logit_bias_);
  at::Tensor d_residual = at::zeros_like(x);
  at::Tensor d_compute = ops::layer_norm_backward(
      d_normalized, x, normalized, parameters_.master(final_gain_), d_residual,
      parameters_.gradient(final_gain_), parameters_.gradient(final_bias_));
  ready(final_bias_);
  ready(final_gain_);
  x.reset();
  normalized = {};
  d_normalized.reset();

  for (size_t layer = blocks_.size(); layer-- > 0;) {
    if (recompute) {
      at::Tensor x1 = kept[layer].x1;
      run_block(layer, {x1, {}}, input, &kept[layer]);
    }
    backward_block(layer, kept[layer], input, d_residual, d_compute);
    kept[layer] = {};
    const Block& block = blocks_[layer];
    for (const size_t index : {block.down, block.up, block.bias2, block.gain2, block.out})
      ready(index);
    for (size_t i = block.attention_parameters.size(); i-- > 0;)
      ready(block.attention_parameters[i]);
    for (const size_t index : {block.qkv, block.bias1, block.gain1}) ready(index);
  }
  ops::embed_backward(d_residual, input.ids.reshape({-1}), parameters_.gradient(embedding_),
                      embedding_scale());
  ready(embedding_);
  return loss;
}

// The normalised output of the last block, [N, C] compute, without anything kept for backward.
at::Tensor Transformer::trunk(const ModelInput& input) {
  Stream stream = embed(input);
  for (size_t layer = 0; layer < blocks_.size(); ++layer)
    stream = run_block(layer, stream, input, nullptr);
  return final_norm(stream, /*in_place=*/true).second.y;
}

at::Tensor Transformer::losses(const ModelInput& input) {
  at::NoGradGuard no_grad;
  at::Tensor normalized = trunk(input);
  at::Tensor targets = input.targets.reshape({-1});
  std::vector<at::Tensor> chunks;
  for (int64_t begin = 0; begin < normalized.size(0); begin += kHeadRows) {
    const int64_t count = std::min(kHeadRows, normalized.size(0) - begin);
    at::Tensor logits = dense(normalized.narrow(0, begin, count), parameters_.compute(embedding_));
    chunks.push_back(ops::cross_entropy({logits, parameters_.master(logit_bias_),
                                         targets.narrow(0, begin, count), 0, at::Tensor()}));
  }
  return at::cat(chunks).view(input.ids.sizes());
}

at::Tensor Transformer::logits(const at::Tensor& ids, const Documents& documents, bool last_only) {
  at::NoGradGuard no_grad;
  const int64_t batch = ids.size(0), length = ids.size(1);
  at::Tensor normalized = trunk({.ids = ids, .targets = {}, .documents = documents, .dropout = {}})
                              .view({batch, length, -1});
  if (last_only) normalized = normalized.narrow(1, length - 1, 1);
  at::Tensor rows = normalized.reshape({-1, normalized.size(2)});
  at::Tensor out = dense(rows, parameters_.compute(embedding_))
                       .to(options_.wide)
                       .add_(parameters_.master(logit_bias_));
  return out.view({batch, normalized.size(1), -1});
}

int64_t DecodeState::bytes() const {
  int64_t all = 0;
  for (const auto& layer : layers) all += layer->bytes();
  return all;
}

DecodeState Transformer::initial_state() const {
  DecodeState state;
  for (const Block& block : blocks_) state.layers.push_back(block.attention->initial_state());
  return state;
}

at::Tensor Transformer::next_logits(DecodeState& state, const at::Tensor& ids) {
  at::NoGradGuard no_grad;
  at::Tensor last;
  for (int64_t begin = 0; begin < ids.size(1); begin += kPrefillTokens) {
    const int64_t n = std::min(kPrefillTokens, ids.size(1) - begin);
    const ModelInput input{
        .ids = ids.narrow(1, begin, n).contiguous(), .targets = {}, .documents = {}, .dropout = {}};
    Stream stream = embed(input, state.length);
    for (size_t layer = 0; layer < blocks_.size(); ++layer)
      stream = run_block(layer, stream, input, nullptr, &state);
    state.length += n;
    last =
        final_norm(stream, /*in_place=*/true).second.y.view({ids.size(0), n, -1}).select(1, n - 1);
  }
  return dense(last.contiguous(), parameters_.compute(embedding_))
      .to(options_.wide)
      .add_(parameters_.master(logit_bias_));
}

std::vector<at::Tensor> Transformer::block_outputs(const at::Tensor& ids) {
  at::NoGradGuard no_grad;
  const ModelInput input{.ids = ids, .targets = {}, .documents = {}, .dropout = {}};
  std::vector<at::Tensor> out;
  Stream stream = embed(input);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    stream = run_block(layer, stream, input, nullptr);
    out.push_back(stream.x.add(stream.delta).view({ids.size(0), ids.size(1), -1}));
  }
  return out;
}

Transformer::Options transformer_options(const Config& config, const at::Device& device) {
  Transformer::Options options;
  options.model = config.model;
  options.attention = config.attention;
  options.device = device;
  options.compute = config.training.precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
  options.seed = static_cast<uint64_t>(config.run.seed);
  return options;
}

}  // namespace polysketch
