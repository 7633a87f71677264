// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace polysketch {

/// How a parameter starts (docs/method.md §1, flax's defaults).
enum class Initializer {
  zeros,
  ones,
  /// truncated at two standard deviations, rescaled to variance 1 / fan_in; fan_in is the last
  /// dimension
  lecun_normal,
  embedding,  ///< normal with variance 1 / width (last dimension)
};

/// One trainable tensor: where it lies in the flat buffers, and how it is treated.
struct ParameterInfo {
  std::string name;            ///< "blocks.3.attention.qkv.weight"
  std::vector<int64_t> shape;  ///< weights of dense layers are [out, in]
  Initializer initializer = Initializer::zeros;
  bool decay = false;         ///< weight decay: matrices only
  bool forward_wide = false;  ///< forward reads the master itself, not the copy in the compute type
  int64_t offset = 0;         ///< first element in the flat buffers
  int64_t count = 0;
};

/// Elements [begin, end) of the flat buffers.
struct FlatRange {
  int64_t begin = 0, end = 0;
  int64_t count() const { return end - begin; }
};

/// How the flat buffers are divided among processes.
struct ParameterSharding {
  int64_t rank = 0, world = 1;
  /// about; a bucket is what travels together, see Parameters::buckets()
  int64_t bucket_elements = 25 << 18;
  /// Keep masters only of the rank's part of each bucket (and whole ones of what forward reads):
  /// ZeRO-1. Nothing changes where the masters are what computes (fp32).
  bool masters = false;
};

/// Of which the size of the flat buffers and of every bucket is a multiple.
int64_t bucket_unit(int64_t world);
/// Elements of every bucket but the last: about as many as were asked for.
int64_t bucket_step(int64_t bucket_elements, int64_t world);

/// All trainable numbers of a model, in four flat buffers: fp32 masters, fp32 gradients, the copies
/// that compute (bf16, or the masters themselves in fp32), so that clipping, the optimiser, hashing
/// and gradient exchange each walk memory once, in order of use in forward. Every parameter starts
/// at a multiple of 64 elements; the padding stays zero.
///
/// Shared among processes, the buffers are cut into buckets, from the end, where gradients are
/// complete first, to the beginning. Of each bucket every process has an equal part, of which it
/// alone keeps moments (and masters) where these are sharded.
class Parameters {
 public:
  /// Declares a parameter; all declarations come before allocate(). forward_wide: see
  /// ParameterInfo.
  size_t add(std::string name, std::vector<int64_t> shape, Initializer initializer, bool decay,
             bool forward_wide = true);

  /// Allocates the buffers on `device` ("cpu", "cuda:0"). master_type: fp32, or fp64 in tests.
  void allocate(const at::Device& device, at::ScalarType compute_type,
                at::ScalarType master_type = at::kFloat, const ParameterSharding& sharding = {});

  /// Draws the start values: a pure function of (seed, index of the parameter, index of the
  /// element), the same on any device and for any number of threads.
  void initialize(uint64_t seed);

  /// Masters -> compute copies. Called after start, load and every optimiser step that does not
  /// write the copies itself.
  void refresh_compute();

  const std::vector<ParameterInfo>& infos() const { return infos_; }
  size_t index(const std::string& name) const;  ///< throws InternalError if there is none
  int64_t count() const { return count_; }      ///< numbers without padding

  /// What travels together, last parameter first. With several processes each bucket divides evenly
  /// among them, into parts of whole blocks of kernels::kSquareBlock, so that a norm is added up in
  /// the same order however many there are.
  const std::vector<FlatRange>& buckets() const { return buckets_; }
  /// This process's parts of the buckets, in the order of buckets(). One process: the buckets
  /// themselves.
  const std::vector<FlatRange>& owned() const { return owned_; }
  at::ScalarType master_type() const { return gradient_.scalar_type(); }
  int64_t rank() const { return sharding_.rank; }
  int64_t world() const { return sharding_.world; }
  bool masters_sharded() const { return masters_sharded_; }

  /// Gives a parameter its value, [shape], on any device: masters, or what this process keeps of
  /// them, and the copy that computes.
  void assign(size_t index, const at::Tensor& value);
  /// Masters of a range of owned(): a view.
  at::Tensor owned_master(size_t range) const;
  /// Takes over the masters of a whole bucket, [count] on the device, after their owners have
  /// updated them: what forward reads.
  void publish(const FlatRange& bucket, const at::Tensor& masters);

  at::Tensor master(
      size_t index) const;  ///< view [shape]; with sharded masters only of what is forward_wide
  at::Tensor gradient(size_t index) const;  ///< view [shape], fp32
  at::Tensor compute(size_t index) const;   ///< view [shape]

  at::Tensor& flat_master();  ///< of all; not with sharded masters
  at::Tensor& flat_gradient() { return gradient_; }
  at::Tensor& flat_compute() { return compute_; }

 private:
  at::Tensor view(const at::Tensor& flat, size_t index) const;
  void divide();
  std::vector<ParameterInfo> infos_;
  ParameterSharding sharding_;
  std::vector<FlatRange> buckets_, owned_;
  bool masters_sharded_ = false;
  // with sharded masters: where each forward_wide parameter lies in wide_
  std::vector<int64_t> wide_offsets_;
  at::Tensor wide_;  // whole masters of those
  int64_t size_ = 0;
  int64_t count_ = 0;
  at::Tensor master_, gradient_, compute_;
};

}  // namespace polysketch
