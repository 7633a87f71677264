// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace polysketch {

/// Name and version of the program and of everything it is built from, as (name, version) pairs;
/// first entry is polysketch itself, second the git commit of the source ("unknown" outside a
/// clone). Compiled in; needs nothing at run time.
std::vector<std::pair<std::string, std::string>> build_info();

/// What this machine is called.
std::string host_name();

/// Host name, CPU model, cores, memory, kernel, instruction sets that matter here (avx2, avx512f,
/// avx512_bf16, amx_bf16).
std::vector<std::pair<std::string, std::string>> machine_info();

}  // namespace polysketch
