// SPDX-License-Identifier: Apache-2.0
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/cross_entropy.hpp"

namespace polysketch::kernels::cuda {
namespace {

constexpr int kRowThreads = 512;  // a block takes one row
constexpr int kColumnLanes = 32;  // a block of the column sum takes 32 lanes of columns ...
constexpr int kRowLanes = 16;     // ... times 16 lanes of rows
constexpr int kWarp = 32;
// finite, so that the difference of two is never NaN
constexpr float kMinusInfinity = -3.402823466e38f;

__device__ float load(const float* p) { return *p; }
__device__ float load(const __nv_bfloat16* p) { return __bfloat162float(*p); }
__device__ void store(float* p, float value) { *p = value; }
__device__ void store(__nv_bfloat16* p, float value) { *p = __float2bfloat16_rn(value); }

// 16 bytes at once where every row starts on such a border, else one element at a time.
template <class T, int kWidth>
struct Pack {
  alignas(sizeof(T) * kWidth) T element[kWidth];
};

// Largest value so far and the sum of exp(value − largest): joins without a second look at the
// values.
struct RunningSoftmax {
  float largest = kMinusInfinity;
  float sum = 0;

  __device__ void join(float other_largest, float other_sum) {
    const float top = fmaxf(largest, other_largest);
    sum = sum * __expf(largest - top) + other_sum * __expf(other_largest - top);
    largest = top;
  }
};

__device__ RunningSoftmax reduce_over_block(RunningSoftmax mine) {
  __shared__ float largest[kRowThreads / kWarp];
  __shared__ float sum[kRowThreads / kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const float other_largest = __shfl_xor_sync(0xffffffffu, mine.largest, step);
    const float other_sum = __shfl_xor_sync(0xffffffffu, mine.sum, step);
    mine.join(other_largest, other_sum);
  }
  if (threadIdx.x % kWarp == 0) {
    largest[threadIdx.x / kWarp] = mine.largest;
    sum[threadIdx.x / kWarp] = mine.sum;
  }
  __syncthreads();
  RunningSoftmax all;
  // same order in every thread
  for (int warp = 0; warp < kRowThreads / kWarp; ++warp) all.join(largest[warp], sum[warp]);
  return all;
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kRowThreads) rows_kernel(CudaCrossEntropy a) {
  const int64_t row = blockIdx.x;
  T* logits = static_cast<T*>(a.logits) + row * a.row_stride;
  const int64_t target = a.targets[row];
  const bool counts = target >= 0 && target < a.vocabulary;
  const int64_t packs = (a.vocabulary + kWidth - 1) / kWidth;
  using P = Pack<T, kWidth>;

  if (counts) {
    RunningSoftmax mine;
    for (int64_t pack = threadIdx.x; pack < packs; pack += kRowThreads) {
      const P p = *reinterpret_cast<const P*>(logits + pack * kWidth);
      float z[kWidth];
      float top = mine.largest;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const int64_t column = pack * kWidth + i;
        z[i] = kMinusInfinity;
        if (column < a.vocabulary)
          z[i] = load(&p.element[i]) + (a.bias != nullptr ? a.bias[column] : 0.0f);
        top = fmaxf(top, z[i]);
      }
      float sum = mine.sum * __expf(mine.largest - top);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        if (pack * kWidth + i < a.vocabulary) sum += __expf(z[i] - top);
      }
      mine.largest = top;
      mine.sum = sum;
    }
    const RunningSoftmax all = reduce_over_block(mine);
    const float log_sum = all.largest + logf(all.sum);
    if (threadIdx.x == 0) {
      const float z = load(logits + target) + (a.bias != nullptr ? a.bias[target] : 0.0f);
      a.loss[row] = log_sum - z;
    }
    if (!a.gradient) return;
    __syncthreads();  // thread 0 has read the target's logit
    for (int64_t pack = threadIdx.x; pack < packs; pack += kRowThreads) {
      P p = *reinterpret_cast<const P*>(logits + pack * kWidth);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const int64_t column = pack * kWidth + i;
        if (column >= a.vocabulary) continue;  // what lies between two rows stays as it is
        const float z = load(&p.element[i]) + (a.bias != nullptr ? a.bias[column] : 0.0f);
        const float probability = __expf(z - log_sum);
        store(&p.element[i], (column == target ? probability - 1.0f : probability) * a.scale);
      }
      *reinterpret_cast<P*>(logits + pack * kWidth) = p;
    }
    return;
  }

  if (threadIdx.x == 0) a.loss[row] = 0;
  if (!a.gradient) return;
  for (int64_t column = threadIdx.x; column < a.vocabulary; column += kRowThreads)
    store(logits + column, 0.0f);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kColumnLanes* kRowLanes) columns_kernel(CudaCrossEntropy a) {
  __shared__ float partial[kRowLanes][kColumnLanes * kWidth + 1];
  using P = Pack<T, kWidth>;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kColumnLanes + threadIdx.x) * kWidth;
  float sum[kWidth] = {};
  if (first < a.vocabulary) {
    const T* gradient = static_cast<const T*>(a.logits) + first;
#pragma unroll 4
    for (int64_t row = threadIdx.y; row < a.rows; row += kRowLanes) {
      const P p = *reinterpret_cast<const P*>(gradient + row * a.row_stride);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum[i] += load(&p.element[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) partial[threadIdx.y][threadIdx.x * kWidth + i] = sum[i];
  __syncthreads();
  const int thread = threadIdx.y * kColumnLanes + threadIdx.x;
  for (int column = thread; column < kColumnLanes * kWidth; column += kColumnLanes * kRowLanes) {
    const int64_t target = static_cast<int64_t>(blockIdx.x) * kColumnLanes * kWidth + column;
    if (target >= a.vocabulary) continue;
    float total = 0;
    for (int lane = 0; lane < kRowLanes; ++lane) total += partial[lane][column];
    a.bias_gradient[target] += total;
  }
}

template <class T, int kWidth>
cudaError_t launch(const CudaCrossEntropy& a, cudaStream_t stream) {
  rows_kernel<T, kWidth><<<static_cast<unsigned>(a.rows), kRowThreads, 0, stream>>>(a);
  if (a.gradient && a.bias_gradient != nullptr) {
    const int64_t columns = kColumnLanes * kWidth;
    columns_kernel<T, kWidth><<<static_cast<unsigned>((a.vocabulary + columns - 1) / columns),
                                dim3(kColumnLanes, kRowLanes), 0, stream>>>(a);
  }
  return cudaGetLastError();
}

// A pack may reach past the last column only into the row's own padding.
template <class T>
cudaError_t launch_widest(const CudaCrossEntropy& a, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const bool aligned =
      reinterpret_cast<uintptr_t>(a.logits) % 16 == 0 && a.row_stride % kWidth == 0;
  return aligned ? launch<T, kWidth>(a, stream) : launch<T, 1>(a, stream);
}

}  // namespace

cudaError_t cross_entropy(const CudaCrossEntropy& a, cudaStream_t stream) {
  if (a.rows == 0) return cudaSuccess;
  if (a.rows < 0 || a.rows > 2147483647 || a.vocabulary < 1 || a.row_stride < a.vocabulary)
    return cudaErrorInvalidValue;
  return a.bf16 ? launch_widest<__nv_bfloat16>(a, stream) : launch_widest<float>(a, stream);
}

}  // namespace polysketch::kernels::cuda
