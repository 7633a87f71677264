// SPDX-License-Identifier: Apache-2.0
// What the program asks of CUDA and of LibTorch's CUDA half. See support/cuda_module.hpp.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "kernels/cuda/cross_entropy.hpp"
#include "support/cuda_module.hpp"

namespace polysketch {
namespace {

thread_local std::string error_text;

bool check(cudaError_t status) {
  if (status == cudaSuccess) return true;
  error_text = cudaGetErrorString(status);
  // CUDA keeps a failure for whoever asks next, and LibTorch would blame its own call for this one
  cudaGetLastError();
  return false;
}

// Runs f; an exception becomes `failed` and a sentence.
template <class Result, class F>
Result guarded(Result failed, F&& f) {
  try {
    return f();
  } catch (const c10::Error& error) {
    error_text = error.what_without_backtrace();
  } catch (const std::exception& error) {
    error_text = error.what();
  }
  return failed;
}

int32_t device_count() {
  int count = 0;
  return check(cudaGetDeviceCount(&count)) ? count : 0;
}

bool device_name(int32_t device, char* name, size_t size) {
  cudaDeviceProp properties;
  if (size == 0 || !check(cudaGetDeviceProperties(&properties, device))) return false;
  std::strncpy(name, properties.name, size - 1);
  name[size - 1] = '\0';
  return true;
}

int32_t attribute(cudaDeviceAttr which, int32_t device) {
  int value = 0;
  return check(cudaDeviceGetAttribute(&value, which, device)) ? value : -1;
}

int32_t multiprocessors(int32_t device) {
  return attribute(cudaDevAttrMultiProcessorCount, device);
}

int32_t compute_capability(int32_t device) {
  const int32_t major = attribute(cudaDevAttrComputeCapabilityMajor, device);
  const int32_t minor = attribute(cudaDevAttrComputeCapabilityMinor, device);
  return major < 0 || minor < 0 ? -1 : major * 10 + minor;
}

c10::CachingDeviceAllocator::Stat whole(const c10::CachingDeviceAllocator::StatArray& stats) {
  return stats[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
}

c10::CachingDeviceAllocator::DeviceStats statistics(int32_t device) {
  return c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
}

int64_t allocated_bytes(int32_t device) {
  return guarded<int64_t>(-1, [&] { return whole(statistics(device).allocated_bytes).current; });
}

int64_t peak_allocated_bytes(int32_t device) {
  return guarded<int64_t>(-1, [&] { return whole(statistics(device).allocated_bytes).peak; });
}

int64_t peak_reserved_bytes(int32_t device) {
  return guarded<int64_t>(-1, [&] { return whole(statistics(device).reserved_bytes).peak; });
}

int64_t cached_bytes(int32_t device) {
  return guarded<int64_t>(-1, [&] {
    const auto now = statistics(device);
    return whole(now.reserved_bytes).current - whole(now.allocated_bytes).current;
  });
}

bool reset_peak(int32_t device) {
  return guarded(false, [&] {
    c10::cuda::CUDACachingAllocator::resetPeakStats(static_cast<c10::DeviceIndex>(device));
    return true;
  });
}

bool free_total_bytes(int32_t device, int64_t* free, int64_t* total) {
  return guarded(false, [&] {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    size_t free_bytes = 0, total_bytes = 0;
    if (!check(cudaMemGetInfo(&free_bytes, &total_bytes))) return false;
    *free = static_cast<int64_t>(free_bytes);
    *total = static_cast<int64_t>(total_bytes);
    return true;
  });
}

bool synchronize(int32_t device) {
  return guarded(false, [&] {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    return check(cudaDeviceSynchronize());
  });
}

bool cross_entropy(const CudaCrossEntropy* arguments, int32_t device) {
  return guarded(false, [&] {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    return check(kernels::cuda::cross_entropy(
        *arguments,
        c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream()));
  });
}

void* create_nccl(void* store, int32_t rank, int32_t world, int32_t device, int64_t timeout) {
  return guarded<void*>(nullptr, [&]() -> void* {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout);
    auto shared = c10::intrusive_ptr<c10d::Store>::reclaim_copy(static_cast<c10d::Store*>(store));
    auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(shared, rank, world, options);
    const at::Device bound(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    group->setBoundDeviceId(bound);
    group->eagerConnectSingleDevice(bound);
    return static_cast<c10d::Backend*>(group.release());
  });
}

int32_t nccl_version() {
  int version = 0;
  return ncclGetVersion(&version) == ncclSuccess ? version : -1;
}

const char* last_error() { return error_text.c_str(); }

constexpr CudaModule kModule = {
    CudaModule::kVersion, device_count,    device_name,          multiprocessors,
    compute_capability,   allocated_bytes, peak_allocated_bytes, peak_reserved_bytes,
    cached_bytes,         reset_peak,      free_total_bytes,     synchronize,
    cross_entropy,        create_nccl,     nccl_version,         last_error};

}  // namespace
}  // namespace polysketch

extern "C" __attribute__((visibility("default"))) const polysketch::CudaModule*
polysketch_cuda_module() {
  return &polysketch::kModule;
}
