// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace polysketch {

/// How a parameter starts (METHOD §1, flax's defaults).
enum class Initializer {
  zeros,
  ones,
  lecun_normal,  ///< truncated at two standard deviations, rescaled to variance 1 / fan_in; fan_in is the last dimension
  embedding,     ///< normal with variance 1 / width (last dimension)
};

/// One trainable tensor: where it lies in the flat buffers, and how it is treated.
struct ParameterInfo {
  std::string name;            ///< "blocks.3.attention.qkv.weight"
  std::vector<int64_t> shape;  ///< weights of dense layers are [out, in]
  Initializer initializer = Initializer::zeros;
  bool decay = false;  ///< weight decay: matrices only
  int64_t offset = 0;  ///< first element in the flat buffers
  int64_t count = 0;
};

/// All trainable numbers of a model, in four flat buffers: fp32 masters, fp32 gradients, the copies that compute (bf16, or the masters
/// themselves in fp32), so that clipping, the optimiser, hashing and gradient exchange each walk memory once, in order of use in forward.
/// Every parameter starts at a multiple of 64 elements; the padding stays zero.
class Parameters {
 public:
  /// Declares a parameter; all declarations come before allocate().
  size_t add(std::string name, std::vector<int64_t> shape, Initializer initializer, bool decay);

  /// Allocates the buffers on `device` ("cpu", "cuda:0"). master_type: fp32, or fp64 in tests.
  void allocate(const at::Device& device, at::ScalarType compute_type, at::ScalarType master_type = at::kFloat);

  /// Draws the start values: a pure function of (seed, index of the parameter, index of the element), the same on any device and
  /// for any number of threads.
  void initialize(uint64_t seed);

  /// Masters -> compute copies. Called after start, load and every optimiser step that does not write the copies itself.
  void refresh_compute();

  const std::vector<ParameterInfo>& infos() const { return infos_; }
  size_t index(const std::string& name) const;  ///< throws InternalError if there is none
  int64_t count() const { return count_; }      ///< numbers without padding

  at::Tensor master(size_t index) const;    ///< view [shape]
  at::Tensor gradient(size_t index) const;  ///< view [shape], fp32
  at::Tensor compute(size_t index) const;   ///< view [shape]

  at::Tensor& flat_master() { return master_; }
  at::Tensor& flat_gradient() { return gradient_; }
  at::Tensor& flat_compute() { return compute_; }

 private:
  at::Tensor view(const at::Tensor& flat, size_t index) const;
  std::vector<ParameterInfo> infos_;
  int64_t size_ = 0;
  int64_t count_ = 0;
  at::Tensor master_, gradient_, compute_;
};

}  // namespace polysketch
