// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/verification.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "checkpoint/leftovers.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/tensor_file.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/system_error.hpp"

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
  if (!fs::is_regular_file(status))
    refuse(checkpoint, fmt::format("{} is not a regular file", file.name));
  const uintmax_t bytes = fs::file_size(path, error);
  if (error) refuse(checkpoint, fmt::format("{}: {}", file.name, error.message()));
  if (bytes != file.bytes)
    refuse(checkpoint, fmt::format("{} has {} bytes, want {}", file.name, bytes, file.bytes));
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
        return fmt::format("{}: bytes of tensor '{}' changed since they were written (CRC-32C)",
                           file.name, tensor.name);
      }
    }
  } catch (const NothingLeft&) {
    throw;
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
  } catch (const NothingLeft&) {
    throw;
  } catch (const UserError& error) {
    return error.what();
  }
  return file.crc32c.empty() ? fmt::format("{}: changed since it was written (SHA-256)", file.name)
                             : trace_damage(path, file);
}

/// The text of manifest.json. Throws UserError 66 or 81.
std::string read_manifest_text(const fs::path& checkpoint) {
  std::error_code error;
  if (!fs::is_directory(checkpoint, error)) {
    throw UserError(ExitCode::missing_input,
                    fmt::format("{}: no such checkpoint folder", checkpoint.string()));
  }
  const fs::path path = checkpoint / "manifest.json";
  if (!fs::is_regular_file(fs::symlink_status(path, error)))
    refuse(checkpoint, "has no manifest.json, so it was never completed");
  try {
    return read_file(path, largest_manifest);
  } catch (const NothingLeft&) {
    throw;
  } catch (const UserError& unreadable) {
    refuse(checkpoint, unreadable.what());
  }
}

Manifest parse_manifest_of(const fs::path& checkpoint, const std::string& text) {
  try {
    return parse_manifest(text, checkpoint / "manifest.json");
  } catch (const std::invalid_argument& defect) {
    refuse(checkpoint, defect.what());
  }
}

/// The first defect among the files, empty if there is none. Sizes of all come first, then
/// contents, as many at once as there are cores.
std::string first_defect(const fs::path& checkpoint, const std::vector<FileRecord>& files) {
  for (const FileRecord& file : files) check_size(checkpoint, file);
  std::vector<std::string> defects(files.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < files.size(); i = next++)
      defects[i] = content_defect(checkpoint, files[i]);
  };
  std::vector<std::future<void>> workers;
  const size_t most =
      std::min<size_t>(files.size(), std::max(1U, std::thread::hardware_concurrency()));
  for (size_t i = 0; i < most; ++i) {
    try {
      workers.push_back(std::async(std::launch::async, work));
    } catch (const std::system_error&) {
      if (workers.empty()) throw;
      break;  // the system has no more threads: those that there are do it all
    }
  }
  for (auto& worker : workers) worker.get();
  const auto first = std::find_if(defects.begin(), defects.end(),
                                  [](const std::string& defect) { return !defect.empty(); });
  return first == defects.end() ? std::string() : *first;
}

}  // namespace

Manifest read_manifest(const fs::path& checkpoint) {
  return parse_manifest_of(checkpoint, read_manifest_text(checkpoint));
}

CheckpointStore::Loaded verify_checkpoint(const fs::path& checkpoint, const Peers& peers) {
  // All go by one text: a damaged or newer manifest is then the same to all.
  const std::string text = exchange(
      peers, [&] { return peers.first() ? read_manifest_text(checkpoint) : std::string(); })[0];
  CheckpointStore::Loaded loaded{0, checkpoint, parse_manifest_of(checkpoint, text)};
  loaded.step = loaded.manifest.step;
  const auto named = step_of_name(fs::path(checkpoint / "").parent_path().filename().string());
  if (named && *named != loaded.step)
    refuse(checkpoint, fmt::format("manifest.json is that of step {}", loaded.step));
  std::vector<FileRecord> own;
  for (size_t i = 0; i < loaded.manifest.files.size(); ++i) {
    if (std::cmp_equal(i % static_cast<size_t>(peers.world), peers.rank))
      own.push_back(loaded.manifest.files[i]);
  }
  together(peers, [&] {
    if (const std::string defect = first_defect(checkpoint, own); !defect.empty())
      refuse(checkpoint, defect);
  });
  return loaded;
}

}  // namespace polysketch
