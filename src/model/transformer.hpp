// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "attention/attention.hpp"
#include "config/config.hpp"
#include "model/attention_probe.hpp"
#include "model/ops.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// Some sequences, ready on the model's device.
struct ModelInput {
  at::Tensor ids;       ///< [B, T] int64
  at::Tensor targets;   ///< [B, T] int64, -1: not scored
  Documents documents;  ///< undefined: every row is one document
  ops::DropoutKey dropout;
  /// takes what it wants to see of the layers in forward_backward; may be null
  AttentionProbe* probe = nullptr;
};

/// What the recurrent form remembers of some texts (docs/method.md §3): a state a layer, constant
/// in size but for the kinds that look at every pair.
struct DecodeState {
  std::vector<std::unique_ptr<AttentionState>> layers;
  int64_t length = 0;  ///< tokens seen
  int64_t bytes() const;
};

/// The paper's Transformer++ (docs/method.md §1): pre-norm blocks with rotary attention and GLU,
/// sinusoidal positions, tied embedding, logit bias.
///
/// Forward and backward are an explicit loop over layers rather than one autograd graph: what is
/// kept and when a gradient is complete can be read off the code, activations are freed layer by
/// layer, and weight gradients are added straight into the flat fp32 buffer. Only an attention
/// mechanism in itself uses autograd.
class Transformer {
 public:
  struct Options {
    ModelConfig model;
    AttentionConfig attention;
    at::Device device = at::kCPU;
    at::ScalarType compute = at::kFloat;  ///< type of matrix products
    at::ScalarType wide = at::kFloat;     ///< fp64 in tests
    uint64_t seed = 1;
    bool initialize = true;      ///< false: the caller loads the parameters
    ParameterSharding sharding;  ///< among the processes of a run
  };

  explicit Transformer(const Options& options);
  Transformer(Transformer&&) noexcept;
  ~Transformer();

  /// Adds the gradient of scale · Σ loss to the gradients and returns Σ loss over the scored tokens
  /// in nats, a scalar of the wide type on the device. `gradient_ready`, if given, is called with
  /// the index of each parameter whose gradient of this micro-batch is complete, last layer first.
  at::Tensor forward_backward(const ModelInput& input, double scale,
                              const std::function<void(size_t)>& gradient_ready = {});

  /// Loss of every token [B, T] in nats, wide; no gradients. 0 where targets is -1.
  at::Tensor losses(const ModelInput& input);

  /// Logits [B, T, V], wide. last_only: of the last position, [B, 1, V].
  at::Tensor logits(const at::Tensor& ids, const Documents& documents = {}, bool last_only = false);

  /// Before the work of a training step, counted from 0: see Attention::at_step.
  void at_step(int64_t step);

  /// The state before the first token. Throws UserError 78 for an attention that has no recurrent
  /// form.
  DecodeState initial_state() const;

  /// Reads n >= 1 further tokens, ids [B, n], and returns the logits after the last of them, [B, V]
  /// wide: what logits() gives for everything read so far. Any length; B is that of the first call.
  at::Tensor next_logits(DecodeState& state, const at::Tensor& ids);

  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  const Options& options() const { return options_; }
  int64_t layers() const { return options_.model.layers; }
  Attention& attention(int64_t layer);

  /// Output of every block [B, T, C], for tests.
  std::vector<at::Tensor> block_outputs(const at::Tensor& ids);

 private:
  struct Block;
  struct Activations;

  /// The residual stream between blocks: x + delta, delta (compute, may be undefined) not yet
  /// added.
  struct Stream {
    at::Tensor x, delta;
  };

  double embedding_scale() const;
  void grow_tables(int64_t length);
  Stream embed(const ModelInput& input, int64_t first_position = 0);
  Stream run_block(size_t layer, const Stream& in, const ModelInput& input, Activations* keep,
                   DecodeState* decode = nullptr);
  at::Tensor attend(size_t layer, const at::Tensor& normalized, const ModelInput& input,
                    Activations* keep, DecodeState* decode);
  void backward_block(size_t layer, Activations& kept, const ModelInput& input,
                      at::Tensor& d_residual, at::Tensor& d_compute);
  void backward_attention(const Block& block, Activations& kept, const ModelInput& input,
                          const at::Tensor& d_out, at::Tensor& d_normalized);
  std::pair<at::Tensor, ops::Normalized> final_norm(const Stream& stream, bool in_place);
  at::Tensor head_backward(const at::Tensor& normalized, const ModelInput& input, double scale,
                           at::Tensor& d_normalized);
  at::Tensor trunk(const ModelInput& input);
  void add_weight_gradient(size_t index, const at::Tensor& d_out, const at::Tensor& in);

  Options options_;
  Parameters parameters_;
  std::vector<Block> blocks_;
  size_t embedding_ = 0, final_gain_ = 0, final_bias_ = 0, logit_bias_ = 0;
  ops::RotaryTable rotary_;  ///< grown to the longest input seen
  at::Tensor positions_;     ///< [>= T, C]
};

/// What a configuration says of the model; sharding and initialisation are left as they are.
Transformer::Options transformer_options(const Config& config, const at::Device& device);

}  // namespace polysketch
