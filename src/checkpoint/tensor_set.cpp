// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/tensor_set.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>
#include <optional>
#include <string_view>
#include <system_error>

#include <nlohmann/json.hpp>

#include "checkpoint/tensor_header.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view extension = ".safetensors";

struct ParsedName {
  std::string group;
  int64_t file = 0, files = 1;
};

/// What tensor_file_name() was given, or nothing for another name.
std::optional<ParsedName> parse_name(std::string_view name) {
  if (!name.ends_with(extension)) return std::nullopt;
  name.remove_suffix(extension.size());
  constexpr std::string_view pattern = "-00001-of-00003";
  if (name.size() > pattern.size()) {
    const std::string_view tail = name.substr(name.size() - pattern.size());
    int64_t file = 0, files = 0;
    std::from_chars(tail.data() + 1, tail.data() + 6, file);
    std::from_chars(tail.data() + 10, tail.data() + 15, files);
    ParsedName parsed{std::string(name.substr(0, name.size() - pattern.size())), file - 1, files};
    if (file >= 1 && file <= files && files > 1 &&
        tensor_file_name(parsed.group, parsed.file, files) == fmt::format("{}{}", name, extension))
      return parsed;
  }
  return ParsedName{std::string(name), 0, 1};
}

int64_t count_files(const std::vector<int64_t>& owners) {
  return owners.empty() ? 1 : owners.back() + 1;
}

uint64_t bytes_of(const TensorView& tensor) {
  uint64_t bytes = 0;
  require(tensor_bytes(tensor.type, tensor.shape, bytes), "a tensor's size overflows");
  return bytes;
}

/// Fills shares one after another, none above `most`.
std::vector<int64_t> fill_shares(const std::vector<uint64_t>& bytes, uint64_t most) {
  std::vector<int64_t> owners(bytes.size());
  int64_t share = 0;
  uint64_t held = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (held + bytes[i] > most) ++share, held = 0;
    held += bytes[i];
    owners[i] = share;
  }
  return owners;
}

}  // namespace

std::vector<int64_t> share_out(const std::vector<uint64_t>& bytes, int64_t writers) {
  require(writers >= 1, "somebody must write");
  if (bytes.empty()) return {};
  // The smallest limit that needs no more shares than there are writers, by bisection.
  uint64_t low = *std::max_element(bytes.begin(), bytes.end()),
           high = std::accumulate(bytes.begin(), bytes.end(), uint64_t{0});
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (fill_shares(bytes, middle).back() < writers) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return fill_shares(bytes, low);
}

std::vector<int64_t> share_out(const std::vector<TensorView>& tensors, int64_t writers) {
  std::vector<uint64_t> bytes;
  bytes.reserve(tensors.size());
  for (const TensorView& tensor : tensors) bytes.push_back(bytes_of(tensor));
  return share_out(bytes, writers);
}

std::string tensor_file_name(const std::string& group, int64_t file, int64_t files) {
  return files == 1 ? fmt::format("{}{}", group, extension)
                    : fmt::format("{}-{:05d}-of-{:05d}{}", group, file + 1, files, extension);
}

std::vector<FileRecord> write_share(const fs::path& folder, const std::vector<TensorGroup>& groups,
                                    int64_t rank, int64_t world) {
  std::vector<FileRecord> records;
  for (const TensorGroup& group : groups) {
    const std::vector<int64_t> owners = share_out(group.tensors, world);
    const int64_t files = count_files(owners);
    if (rank >= files) continue;
    std::vector<TensorView> own;
    for (size_t i = 0; i < owners.size(); ++i) {
      if (owners[i] == rank) own.push_back(group.tensors[i]);
    }
    records.push_back(
        write_safetensors(folder / tensor_file_name(group.name, rank, files), own, group.metadata));
  }
  return records;
}

std::vector<FileRecord> write_indexes(const fs::path& folder,
                                      const std::vector<TensorGroup>& groups, int64_t world) {
  std::vector<FileRecord> records;
  for (const TensorGroup& group : groups) {
    const std::vector<int64_t> owners = share_out(group.tensors, world);
    const int64_t files = count_files(owners);
    if (files == 1) continue;
    nlohmann::ordered_json map = nlohmann::ordered_json::object();
    uint64_t total = 0;
    for (size_t i = 0; i < owners.size(); ++i) {
      map[group.tensors[i].name] = tensor_file_name(group.name, owners[i], files);
      total += bytes_of(group.tensors[i]);
    }
    const nlohmann::ordered_json index{{"metadata", {{"total_size", total}}},
                                       {"weight_map", std::move(map)}};
    const std::string text = index.dump(2) + "\n";
    const std::string name = fmt::format("{}{}.index.json", group.name, extension);
    write_file_durably(folder / name, text);
    records.push_back({name, text.size(), sha256_hex(text), {}});
  }
  return records;
}

std::vector<std::string> groups_of(const std::vector<FileRecord>& files) {
  std::vector<std::string> groups;
  for (const FileRecord& file : files) {
    const auto parsed = parse_name(file.name);
    if (parsed && std::find(groups.begin(), groups.end(), parsed->group) == groups.end())
      groups.push_back(parsed->group);
  }
  return groups;
}

TensorSet::TensorSet(const fs::path& folder, const std::vector<FileRecord>& files,
                     const std::string& group) {
  const auto refuse = [&](const std::string& defect) {
    throw UserError(ExitCode::no_checkpoint,
                    fmt::format("{}: {}: use another checkpoint", folder.string(), defect));
  };
  std::vector<const FileRecord*> members;
  int64_t wanted = 0;
  for (const FileRecord& file : files) {
    const auto parsed = parse_name(file.name);
    if (!parsed || parsed->group != group) continue;
    if (wanted != 0 && parsed->files != wanted)
      refuse(fmt::format("manifest.json lists {} as one file and as several", group));
    wanted = parsed->files;
    members.push_back(&file);
  }
  if (members.empty())
    refuse(fmt::format("manifest.json lists no {}", tensor_file_name(group, 0, 1)));
  if (std::cmp_not_equal(members.size(), wanted))
    refuse(fmt::format("manifest.json lists {} of {} files of {}", members.size(), wanted, group));
  where_ = (folder / (wanted == 1 ? members[0]->name
                                  : fmt::format("{}-*-of-{:05d}{}", group, wanted, extension)))
               .string();
  for (const FileRecord* member : members) {
    files_.push_back({TensorFile(folder / member->name), *member});
    for (const TensorInfo& tensor : files_.back().tensors.tensors()) {
      if (!places_.emplace(tensor.name, std::pair(files_.size() - 1, tensors_.size())).second)
        refuse(fmt::format("tensor '{}' is in two files of {}", tensor.name, group));
      tensors_.push_back(tensor);
    }
  }
}

const TensorInfo* TensorSet::find(const std::string& name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &tensors_[found->second.second];
}

void TensorSet::read(const TensorInfo& info, void* target) const {
  const auto place = places_.find(info.name);
  require(place != places_.end(), "a tensor of another set");
  const File& file = files_[place->second.first];
  const uint32_t crc = file.tensors.read(info, target);
  const auto want = file.record.crc32c.find(info.name);
  if (want == file.record.crc32c.end() || want->second != crc) {
    throw UserError(ExitCode::no_checkpoint,
                    fmt::format("{}: bytes of tensor '{}' are not those that were saved (CRC-32C): "
                                "the disk or the network "
                                "between is at fault; try again, or use another checkpoint",
                                file.record.name, info.name));
  }
}

}  // namespace polysketch
