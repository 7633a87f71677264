// SPDX-License-Identifier: Apache-2.0
#include "support/cuda_module.hpp"

#include <dlfcn.h>

#include <atomic>
#include <mutex>
#include <string>

#include "support/error.hpp"

namespace polysketch {
namespace {

constexpr const char* kModuleFile = "libpolysketch_cuda.so";

std::atomic<const CudaModule*> loaded{nullptr};

std::string loader_reason() {
  const char* reason = dlerror();
  return reason != nullptr ? reason : "unknown reason";
}

// The module is found through the program's run path. It must see LibTorch's symbols and LibTorch
// those of its CUDA half, hence global.
const CudaModule* open_module() {
  if (cuda_device_count() == 0) {
    throw UserError(ExitCode::config,
                    "no GPU was found (the NVIDIA driver is missing or shows none): use --set "
                    "training.device=cpu");
  }
  void* library = dlopen(kModuleFile, RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    throw UserError(ExitCode::config,
                    std::string("the CUDA module cannot be loaded (") + loader_reason() +
                        "): build with the preset `cuda`, or use --set training.device=cpu");
  }
  using Entry = const CudaModule* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, "polysketch_cuda_module"));
  if (entry == nullptr)
    throw UserError(ExitCode::config, std::string(kModuleFile) +
                                          " is not this program's CUDA module: " + loader_reason());
  const CudaModule* module = entry();
  if (module->version != CudaModule::kVersion) {
    throw UserError(
        ExitCode::config,
        std::string(kModuleFile) +
            " belongs to another version of this program: build or install both together");
  }
  if (module->device_count() == 0) {
    throw UserError(
        ExitCode::config,
        std::string("LibTorch sees no GPU (") + module->last_error() +
            "): the driver is probably older than CUDA 13 needs; use --set training.device=cpu");
  }
  return module;
}

}  // namespace

int32_t cuda_device_count() {
  static const int32_t count = [] {
    // stays open: LibTorch will use it
    void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver == nullptr) return 0;
    const auto initialise = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
    const auto get_count = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
    int devices = 0;
    if (initialise == nullptr || get_count == nullptr || initialise(0) != 0 ||
        get_count(&devices) != 0)
      return 0;
    return devices;
  }();
  return count;
}

const CudaModule& load_cuda_module() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (loaded.load() == nullptr) loaded.store(open_module());
  return *loaded.load();
}

const CudaModule* cuda_module() { return loaded.load(); }

}  // namespace polysketch
