// SPDX-License-Identifier: Apache-2.0
#include "device/device.hpp"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <thread>

#include "device/accelerator.hpp"
#include "device/contention.hpp"
#include "device/cpu_peak.hpp"
#include "launch/processors.hpp"
#include "support/build_info.hpp"
#include "support/cuda_module.hpp"
#include "support/error.hpp"
#include "support/log.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

void set_up_cpu(int64_t threads) {
  // Large temporaries come and go with every layer: keep their memory instead of giving it back to
  // the system and faulting it in again.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  // LibTorch counts the processors of the machine; a container may be allowed less of them.
  if (threads == 0 && std::getenv("OMP_NUM_THREADS") == nullptr)
    threads = std::min<int64_t>(at::get_num_threads(), usable_processors());
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
  watch_contention();
}

/// Of a device that open_device() has opened.
const CudaModule& gpu() {
  const CudaModule* module = cuda_module();
  require(module != nullptr, "a GPU is used that was not opened");
  return *module;
}

}  // namespace

at::Device open_device(const std::string& specification, int64_t threads) {
  set_up_cpu(threads);
  if (specification == "cpu") return at::kCPU;
  if (specification == "auto") {
    if (cuda_device_count() == 0) return at::kCPU;
    try {
      load_cuda_module();
    } catch (const UserError& error) {
      log_warning(fmt::format("training.device: auto takes the CPU: {}", error.what()));
      return at::kCPU;
    }
    return open_device("cuda:0", threads);  // with the settings of products below
  }
  std::optional<int64_t> index = 0;
  const auto fail = [&](const std::string& reason) {
    throw UserError(ExitCode::config,
                    fmt::format("training.device: {} cannot be used: {}: use cpu or auto",
                                specification, reason));
  };
  if (specification.starts_with("cuda:")) {
    index = parse_count(specification.substr(5));
    if (!index) fail("want cuda:N with a number N");
  } else if (specification != "cuda") {
    fail("want cpu, cuda, cuda:N or auto");
  }
  if (cuda_device_count() == 0) fail("there is no NVIDIA driver, or it shows no GPU");
  // Its kernels and what it knows of the GPU; brings LibTorch's CUDA half with it. A run on the CPU
  // starts without both.
  const CudaModule& module = load_cuda_module();
  if (*index >= module.device_count())
    fail(fmt::format("there are {} devices", module.device_count()));
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowBF16ReductionCuBLAS(false);
  // the allocator knows no device before, and refuses to be asked about one
  at::globalContext().lazyInitDevice(at::kCUDA);
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(*index));
}

int64_t peak_memory_bytes(const at::Device& device) {
  if (device.is_cuda()) return gpu().peak_reserved_bytes(device.index());
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

int64_t available_memory_bytes(const at::Device& device) {
  if (!device.is_cuda()) return available_host_bytes();
  int64_t free = 0, total = 0;
  if (!gpu().free_total_bytes(device.index(), &free, &total))
    throw UserError(ExitCode::resources,
                    fmt::format("the memory of the GPU is not known: {}", gpu().last_error()));
  return free + gpu().cached_bytes(device.index());
}

int64_t available_host_bytes(const std::filesystem::path& root) {
  const auto number_in = [&](const char* path, const std::string& word) -> std::optional<int64_t> {
    std::ifstream file(root / path);
    int64_t number = 0;
    for (std::string found; !word.empty() && found != word;) {
      if (!(file >> found)) return std::nullopt;
    }
    return file >> number ? std::optional(number) : std::nullopt;
  };
  int64_t available = std::numeric_limits<int64_t>::max();
  if (const auto kibibytes = number_in("proc/meminfo", "MemAvailable:"))
    available = *kibibytes * 1024;
  const auto limit = number_in("sys/fs/cgroup/memory.max", ""),
             used = number_in("sys/fs/cgroup/memory.current", "");
  if (!limit || !used) return available;
  int64_t pages_of_files = 0;
  for (const char* list : {"inactive_file", "active_file"})
    pages_of_files += number_in("sys/fs/cgroup/memory.stat", list).value_or(0);
  return std::min(available, *limit - std::max<int64_t>(0, *used - pages_of_files));
}

double peak_flops(const at::Device& device, at::ScalarType compute) {
  if (!device.is_cuda()) return measured_cpu_flops(compute);
  const Accelerator* known = find_accelerator(device_name(device));
  if (known == nullptr) return 0;
  return compute == at::kBFloat16 ? known->bf16_flops : known->fp32_flops;
}

void synchronize(const at::Device& device) {
  if (device.is_cuda() && !gpu().synchronize(device.index()))
    throw UserError(ExitCode::hardware, fmt::format("the GPU has failed: {}", gpu().last_error()));
}

std::string device_name(const at::Device& device) {
  if (device.is_cuda()) {
    std::array<char, 256> name{};
    return gpu().device_name(device.index(), name.data(), name.size()) ? name.data() : "GPU";
  }
  std::string cpu = "CPU";
  for (const auto& [name, value] : machine_info()) {
    if (name.find("cpu") != std::string::npos || name.find("CPU") != std::string::npos) {
      cpu = value;
      break;
    }
  }
  const int threads = at::get_num_threads();
  return fmt::format("{}, {} {}", cpu, threads, threads == 1 ? "thread" : "threads");
}

}  // namespace polysketch
