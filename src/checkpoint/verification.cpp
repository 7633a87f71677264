// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/verification.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "checkpoint/leftovers.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/tensor_file.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t largest_manifest = uint64_t{64} << 20;

[[noreturn]] void refuse(const fs::path& checkpoint, const std::string& defect) {
  throw UserError(ExitCode::no_checkpoint, fmt::format("{}: {}", checkpoint.string(), defect));
}

void check_size(const fs::path& checkpoint, const FileRecord& file) {
  const fs::path path = checkpoint / file.name;
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (!fs::exists(status)) refuse(checkpoint, fmt::format("{} is missing", file.name));
  if (!fs::is_regular_file(status)) refuse(checkpoint, fmt::format("{} is not a regular file", file.name));
  const uintmax_t bytes = fs::file_size(path, error);
  if (error) refuse(checkpoint, fmt::format("{}: {}", file.name, error.message()));
  if (bytes != file.bytes) refuse(checkpoint, fmt::format("{} has {} bytes, want {}", file.name, bytes, file.bytes));
}

/// What a wrong hash comes from, as exactly as the checksums of the single tensors allow.
std::string trace_damage(const fs::path& path, const FileRecord& file) {
  try {
    const TensorFile tensors(path);
    std::vector<char> bytes;
    for (const TensorInfo& tensor : tensors.tensors()) {
      bytes.resize(tensor.bytes);
      const auto want = file.crc32c.find(tensor.name);
      if (want == file.crc32c.end() || tensors.read(tensor, bytes.data()) != want->second) {
        return fmt::format("{}: bytes of tensor '{}' changed since they were written (CRC-32C)", file.name, tensor.name);
      }
    }
  } catch (const UserError& error) {
    return error.what();
  }
  return fmt::format("{}: changed since it was written (SHA-256)", file.name);
}

/// The defect of one file, empty if it is as written.
std::string content_defect(const fs::path& checkpoint, const FileRecord& file) {
  const fs::path path = checkpoint / file.name;
  try {
    if (sha256_file(path) == file.sha256) return {};
  } catch (const UserError& error) {
    return error.what();
  }
  return file.crc32c.empty() ? fmt::format("{}: changed since it was written (SHA-256)", file.name) : trace_damage(path, file);
}

}  // namespace

Manifest read_manifest(const fs::path& checkpoint) {
  std::error_code error;
  if (!fs::is_directory(checkpoint, error)) {
    throw UserError(ExitCode::missing_input, fmt::format("{}: no such checkpoint folder", checkpoint.string()));
  }
  const fs::path path = checkpoint / "manifest.json";
  if (!fs::is_regular_file(fs::symlink_status(path, error))) refuse(checkpoint, "has no manifest.json, so it was never completed");
  try {
    return parse_manifest(read_file(path, largest_manifest), path);
  } catch (const std::invalid_argument& defect) {
    refuse(checkpoint, defect.what());
  } catch (const NewerFormat&) {
    throw;
  } catch (const UserError& unreadable) {
    refuse(checkpoint, unreadable.what());
  }
}

CheckpointStore::Loaded verify_checkpoint(const fs::path& checkpoint) {
  CheckpointStore::Loaded loaded{0, checkpoint, read_manifest(checkpoint)};
  loaded.step = loaded.manifest.step;
  const auto named = step_of_name(fs::path(checkpoint / "").parent_path().filename().string());
  if (named && *named != loaded.step) refuse(checkpoint, fmt::format("manifest.json is that of step {}", loaded.step));
  for (const FileRecord& file : loaded.manifest.files) check_size(checkpoint, file);

  std::vector<std::future<std::string>> checks;
  checks.reserve(loaded.manifest.files.size());
  for (const FileRecord& file : loaded.manifest.files) {
    checks.push_back(std::async(std::launch::async, [&checkpoint, &file] { return content_defect(checkpoint, file); }));
  }
  std::vector<std::string> defects;
  defects.reserve(checks.size());
  for (auto& check : checks) defects.push_back(check.get());
  const auto first = std::find_if(defects.begin(), defects.end(), [](const std::string& defect) { return !defect.empty(); });
  if (first != defects.end()) refuse(checkpoint, *first);
  return loaded;
}

}  // namespace polysketch
