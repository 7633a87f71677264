// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace polysketch {

/// Makes the device of `training.device` usable: `cpu`, `cuda`, `cuda:N`, or `auto` (the first GPU
/// if there is one, else the CPU). LibTorch's CUDA half is loaded only here, and only if a GPU is
/// asked for. threads: of the CPU's compute pool, 0: all that this process may use; from here on
/// they are watched (watch_contention). Throws UserError 78 when a GPU is
/// asked for and there is none.
at::Device open_device(const std::string& specification, int64_t threads);

/// Largest memory in use so far: of the GPU's allocator, or the resident set of the process on the
/// CPU.
int64_t peak_memory_bytes(const at::Device& device);

/// What can still be allocated without pushing anything out: the least of what the machine and the
/// process's control group have left, or the free memory of the GPU.
int64_t available_memory_bytes(const at::Device& device);

/// The CPU's part of it, from proc/meminfo and sys/fs/cgroup under `root` ("/" but in tests). Pages
/// of files count as available, since the system gives them up. The largest number there is where
/// nothing can be read.
int64_t available_host_bytes(const std::filesystem::path& root = "/");

/// Dense FLOP/s of matrix products in bf16 (or fp32): of a GPU by its data sheet, 0 where its model
/// is not known; of the CPU as measured (cpu_peak.hpp).
double peak_flops(const at::Device& device, at::ScalarType compute);

/// Waits until the device has done what it was given.
void synchronize(const at::Device& device);

/// "AMD EPYC 9B14, 2 threads" or "NVIDIA H200".
std::string device_name(const at::Device& device);

}  // namespace polysketch
