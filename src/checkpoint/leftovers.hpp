// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace polysketch {

// The names of folders beside the checkpoints of a run, and what is done with them.

std::string checkpoint_name(int64_t step);                     ///< "step-00001000"
std::optional<int64_t> step_of_name(const std::string& name);  ///< nothing for any other spelling

/// `step-00001000.tmp-<pid>-<n>` for a save being written, `.trash-step-00001000-<pid>-<n>` for a
/// checkpoint being deleted; n counts up.
std::string temporary_name(int64_t step);
std::string trash_name(int64_t step);

/// A folder that a live Save of this process is writing into is never a leftover.
void register_live_save(const std::filesystem::path& temporary);
void unregister_live_save(const std::filesystem::path& temporary);

/// Removes temporary and trash folders that a dead process of this run left, with a line for each.
/// Folders whose names this program does not give are left alone, with a warning. To be called by
/// the owner of the run folder only.
void remove_leftovers(const std::filesystem::path& checkpoints);

/// Moves the folder to its trash name, makes that durable, then deletes it: a crash in between
/// leaves no half checkpoint that looks whole.
void delete_checkpoint(const std::filesystem::path& checkpoints,
                       const std::filesystem::path& victim, int64_t step);

/// The same where a newer checkpoint is safe already: one that stays costs space, not the run, so
/// failure is a warning.
void delete_if_possible(const std::filesystem::path& checkpoints,
                        const std::filesystem::path& victim, int64_t step);

}  // namespace polysketch
