// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/config.hpp"
#include "distributed/collectives.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// AdamW with decoupled decay on matrices only, bias-corrected moments, epsilon outside the root
/// (docs/method.md §4), on the flat buffers: the norm reads the gradients once, the
/// step walks masters, moments and gradients once, writes the compute copies and leaves the
/// gradients zero.
///
/// Sharded over processes (ZeRO-1) each keeps the moments of Parameters::owned() only, updates that
/// part, and gets the rest from its owners. On the CPU the update equals the unsharded one bit for
/// bit.
class AdamW {
 public:
  /// `sharded_over`: null for an optimiser that keeps all.
  AdamW(Parameters& parameters, const OptimizerConfig& config, Collectives* sharded_over = nullptr);

  /// Euclidean norm of all gradients as they are, before clipping; sharded, of those of owned(),
  /// the others are taken for undefined. Scalar, fp64 (CPU) or fp32 (device). No wait for the
  /// device.
  at::Tensor gradient_norm();

  /// One update with the gradients as they are, whose norm is that of gradient_norm(): clips, moves
  /// masters and moments, writes the compute copies and leaves the gradients zero. `update` counts
  /// from 1 (bias correction). A norm that is not finite changes nothing; on the device that is
  /// decided there, without a wait.
  void apply(double learning_rate, int64_t update, const at::Tensor& norm);

  bool sharded() const { return sharded_over_ != nullptr; }
  at::Tensor& first_moment() {
    return first_;
  }  ///< fp32: flat, laid out like the masters; sharded: the ranges of owned() in turn
  at::Tensor& second_moment() { return second_; }  ///< likewise
  /// This process's part of one of the two, of a range of Parameters::owned(): a view.
  at::Tensor owned_part(const at::Tensor& moment, size_t range) const;
  /// Sets a parameter's entries of one of the two, or what this process keeps of them; value:
  /// [shape].
  void assign(at::Tensor& moment, size_t parameter, const at::Tensor& value) const;

 private:
  /// Elements that are updated alike: `flat` in the gradients, `kept` in the moments.
  struct Piece {
    int64_t flat, kept, count;
    size_t range;    ///< of owned(); sharded only
    int64_t within;  ///< first element, counted from the begin of that range
    bool decay;
  };
  at::Tensor master_of(const Piece& piece);
  at::Tensor square_sum_of_owned() const;
  double norm_by_kernels();
  void apply_with_kernels(double learning_rate, int64_t update, float gradient_scale);
  void apply_fused(double learning_rate, int64_t update, const at::Tensor& norm);
  void apply_generic(double learning_rate, int64_t update, const at::Tensor& norm);
  void finish_update(bool copies_written);

  Parameters& parameters_;
  OptimizerConfig config_;
  Collectives* sharded_over_;
  std::vector<Piece> pieces_;
  at::Tensor first_, second_;
};

}  // namespace polysketch
