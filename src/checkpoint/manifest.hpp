// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint_store.hpp"
#include "support/error.hpp"

namespace polysketch {

/// A file as manifest.json lists it, and as writers tell it to each other. file_from_json throws
/// std::invalid_argument with the defect.
nlohmann::json to_json(const FileRecord& file);
FileRecord file_from_json(const nlohmann::json& entry);

/// The text of manifest.json. Besides what Manifest holds it has `format`, `format_version` and
/// `sha256`: the hash of the compact, key-sorted dump of all the rest. Every later version of the
/// format keeps these three and their rule, so that a manifest of a newer program can be told from
/// a damaged one.
std::string manifest_text(const Manifest& manifest);

/// Thrown for a sound manifest of a newer program: falling back to an older checkpoint would
/// silently lose work.
class NewerFormat : public UserError {
 public:
  using UserError::UserError;
};

/// Parses and checks manifest.json. Throws NewerFormat (81) with both versions, or
/// std::invalid_argument with the defect: not strict JSON, repeated keys, missing or ill-typed
/// keys, a hash that does not match, file names that are no plain names.
Manifest parse_manifest(std::string_view text, const std::filesystem::path& path);

}  // namespace polysketch
