// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

#include "checkpoint/checkpoint_store.hpp"

namespace polysketch {

/// Reads `<checkpoint>/manifest.json` without looking at the files it lists. Throws UserError 66 if
/// there is no such folder, 81 with the defect if it is no checkpoint.
Manifest read_manifest(const std::filesystem::path& checkpoint);

/// Checks a checkpoint wholly: manifest, its step against the folder's name, sizes of all files,
/// then their SHA-256 (files in parallel, at the speed of disk and hash). A wrong hash is traced to
/// the tensor whose CRC-32C differs. Several processes check it together, each its share of the
/// files, by the manifest that rank 0 reads. Throws UserError 66 or 81 with the defect, the same on
/// all.
CheckpointStore::Loaded verify_checkpoint(const std::filesystem::path& checkpoint,
                                          const Peers& peers = {});

}  // namespace polysketch
