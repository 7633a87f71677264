// SPDX-License-Identifier: Apache-2.0
#include "support/build_info.hpp"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <thread>

#include "build_info_generated.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

// Text after "name : " of the first line of /proc/cpuinfo that starts with it.
std::string cpuinfo(const std::string& name) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (line.compare(0, name.size(), name) != 0 || colon == std::string::npos) continue;
    if (line.find_first_not_of(" \t", name.size()) != colon) continue;
    return colon + 2 < line.size() ? line.substr(colon + 2) : "";
  }
  return "unknown";
}

// From the kernel's list rather than from the CPU: it leaves out what the system does not enable.
std::string instruction_sets() {
  const std::string flags = " " + cpuinfo("flags") + " ";
  std::string found;
  for (const std::string set :
       {"sse4_2", "sha_ni", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"}) {
    if (flags.find(" " + set + " ") != std::string::npos) found += (found.empty() ? "" : " ") + set;
  }
  return found.empty() ? "none of those looked for" : found;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> build_info() {
  return {{"polysketch", POLYSKETCH_VERSION},
          {"commit", POLYSKETCH_COMMIT},
          {"compiler", POLYSKETCH_COMPILER},
          {"build type", POLYSKETCH_BUILD_TYPE},
          {"LibTorch", POLYSKETCH_LIBTORCH_VERSION},
          {"Arrow", POLYSKETCH_ARROW_VERSION},
          {"SentencePiece", POLYSKETCH_SENTENCEPIECE_VERSION},
          {"yaml-cpp", POLYSKETCH_YAML_CPP_VERSION},
          {"spdlog", POLYSKETCH_SPDLOG_VERSION},
          {"CLI11", POLYSKETCH_CLI11_VERSION},
          {"nlohmann-json", POLYSKETCH_JSON_VERSION},
          {"zlib", POLYSKETCH_ZLIB_VERSION}};
}

std::string host_name() {
  utsname system{};
  return ::uname(&system) == 0 ? system.nodename : "this machine";
}

std::vector<std::pair<std::string, std::string>> machine_info() {
  utsname system{};
  uname(&system);
  const int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  return {{"host", host_name()},
          {"CPU", cpuinfo("model name")},
          {"cores", fmt::format("{}", std::thread::hardware_concurrency())},
          {"memory", format_bytes(memory)},
          {"kernel", fmt::format("{} {} {}", system.sysname, system.release, system.machine)},
          {"instruction sets", instruction_sets()}};
}

}  // namespace polysketch
