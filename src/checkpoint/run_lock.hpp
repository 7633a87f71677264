// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace polysketch {

/// Whether this process owns the run folder through a RunLock (checkpoint_store.hpp). Only an owner
/// may tidy up in it.
bool holds_run_lock(const std::filesystem::path& run_directory);

}  // namespace polysketch
