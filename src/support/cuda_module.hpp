// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace polysketch {

/// What the cross-entropy kernel of the CUDA module takes; contract as kernels::CrossEntropy of the
/// CPU. All pointers are device memory.
struct CudaCrossEntropy {
  /// [rows, vocabulary], rows `row_stride` elements apart, rows·row_stride elements allocated;
  /// becomes (softmax(z) − one-hot)·scale if `gradient`. Fast where logits and row_stride·element
  /// size are multiples of 16 bytes.
  void* logits;
  bool bf16;               ///< element type of logits: bf16 or fp32
  bool gradient;           ///< false: logits are only read
  int64_t row_stride;      ///< >= vocabulary
  const float* bias;       ///< [vocabulary], added to the logits: z = logits + bias; null: none
  const int64_t* targets;  ///< [rows]; a target outside [0, vocabulary) gives loss 0 and gradient 0
  float* loss;             ///< [rows], not scaled
  float* bias_gradient;  ///< [vocabulary] += column sums of the stored gradient, in a fixed order;
                         ///< null: not wanted
  float scale;
  int64_t rows, vocabulary;
};

/// The functions of libpolysketch_cuda.so, the only part of the program that is linked to CUDA.
/// Loaded when a GPU is asked for, with LibTorch's CUDA half, which registers its operations on the
/// way. Nothing throws across this border: functions that can fail return false (or −1) and leave a
/// sentence in last_error().
struct CudaModule {
  int32_t version;  ///< kVersion of the header it was compiled with
  int32_t (*device_count)();
  /// Copies the name, cut to size − 1 bytes, with its closing zero.
  bool (*device_name)(int32_t device, char* name, size_t size);
  int32_t (*multiprocessors)(int32_t device);
  int32_t (*compute_capability)(int32_t device);    ///< 90 for Hopper
  int64_t (*allocated_bytes)(int32_t device);       ///< by LibTorch's allocator, now
  int64_t (*peak_allocated_bytes)(int32_t device);  ///< the most so far or since reset_peak
  int64_t (*peak_reserved_bytes)(
      int32_t device);  ///< likewise, with what the allocator keeps for later
  /// What LibTorch's allocator holds and has not given out.
  int64_t (*cached_bytes)(int32_t device);
  bool (*reset_peak)(int32_t device);
  bool (*free_total_bytes)(int32_t device, int64_t* free, int64_t* total);
  bool (*synchronize)(int32_t device);
  /// Enqueues on LibTorch's current stream of the device on which the pointers lie.
  bool (*cross_entropy)(const CudaCrossEntropy* arguments, int32_t device);
  /// A c10d::ProcessGroupNCCL of `world` processes that meet at `store` (a c10d::Store*, not taken
  /// over), as a c10d::Backend* whose one reference is the caller's. Null on failure. timeout: of
  /// an exchange, milliseconds.
  void* (*create_nccl)(void* store, int32_t rank, int32_t world, int32_t device, int64_t timeout);
  /// Version of the NCCL that is loaded, as NCCL counts: 22809 is 2.28.9.
  int32_t (*nccl_version)();
  const char* (*last_error)();  ///< of this thread's last failed call; valid until the next

  static constexpr int32_t kVersion = 3;
};

/// GPUs that the driver shows. Asks the driver alone: fast, and 0 without a driver.
int32_t cuda_device_count();

/// Loads the module at the first call. Throws UserError 78 if there is no driver, no GPU, no module
/// beside the program, or if the module or LibTorch's CUDA half cannot be loaded (with the loader's
/// reason).
const CudaModule& load_cuda_module();

/// The module if it has been loaded, else null. For code that has a tensor on a GPU in hand.
const CudaModule* cuda_module();

}  // namespace polysketch
