// SPDX-License-Identifier: Apache-2.0
#include "data/corpus_identity.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <stdexcept>

#include "data/corpus_description.hpp"
#include "support/error.hpp"
#include "support/text.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

constexpr size_t kHashDigits = 16;
constexpr int64_t kCheckedPerFile = int64_t{1} << 20, kCheckedInAll = int64_t{64} << 20;

/// Names of files may be any bytes, JSON is UTF-8: other names are written in percent signs.
std::string portable(const std::string& name) {
  if (!invalid_utf8_at(name)) return name;
  std::string text;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte < 0x80 ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return text;
}

void add_part(std::string& text, const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return;
  constexpr size_t shown = 3;
  const std::vector<std::string> first(
      names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(shown, names.size())));
  text += fmt::format("{}{} {} ({}{})", text.empty() ? "" : ", ", names.size(), what,
                      fmt::join(first, ", "), names.size() > shown ? ", …" : "");
}

}  // namespace

CorpusIdentity CorpusIdentity::of(const Corpus& corpus, Split split) {
  CorpusIdentity identity;
  for (const CorpusFile& file : corpus.files(split))
    identity.files[portable(file.name)] = {file.bytes, "", false, file.bytes};
  return identity;
}

void CorpusIdentity::note(const std::map<std::string, std::string>& hashes) {
  for (const auto& [name, hash] : hashes) {
    const auto file = files.find(portable(name));
    if (file == files.end()) continue;
    file->second.hash = hash.substr(0, kHashDigits);
    file->second.unreadable = false;
  }
}

bool CorpusIdentity::note_unreadable(const std::set<std::string>& names) {
  bool news = false;
  for (const std::string& name : names) {
    const auto file = files.find(portable(name));
    if (file == files.end() || file->second.unreadable) continue;
    file->second.unreadable = news = true;
  }
  return news;
}

void CorpusIdentity::continue_from(const CorpusIdentity& before) {
  for (const auto& [name, old] : before.files) {
    const auto file = files.find(name);
    if (file == files.end()) continue;
    file->second.counted = old.counted;
    file->second.unreadable = old.unreadable;
    if (!old.unreadable) file->second.hash = old.hash;
  }
}

std::map<std::string, uint64_t> CorpusIdentity::counted() const {
  std::map<std::string, uint64_t> sizes;
  for (const auto& [name, file] : files)
    if (file.counted != file.bytes) sizes[name] = file.counted;
  return sizes;
}

std::vector<std::string> CorpusIdentity::unreadable() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : files)
    if (file.unreadable) names.push_back(name);
  return names;
}

std::map<std::string, std::string> CorpusIdentity::hashes() const {
  std::map<std::string, std::string> known;
  for (const auto& [name, file] : files)
    if (!file.hash.empty() && !file.unreadable) known[name] = file.hash;
  return known;
}

nlohmann::json CorpusIdentity::to_json() const {
  nlohmann::json lines = nlohmann::json::array();
  for (const auto& [name, file] : files) {
    const std::string counted = file.counted == file.bytes ? "" : fmt::format("/{}", file.counted);
    const std::string hash = file.unreadable ? "?" : file.hash.empty() ? "-" : file.hash;
    lines.push_back(fmt::format("{}{} {} {}", file.bytes, counted, hash, name));
  }
  return lines;
}

CorpusIdentity CorpusIdentity::from_json(const nlohmann::json& json) {
  CorpusIdentity identity;
  try {
    for (const auto& line : json) {
      const auto text = line.get<std::string>();
      const size_t hash = text.find(' '), name = text.find(' ', hash + 1);
      if (hash == std::string::npos || name == std::string::npos)
        throw std::invalid_argument("an entry has no name");
      File file;
      const char* const sizes_end = text.data() + hash;
      auto parsed = std::from_chars(text.data(), sizes_end, file.bytes);
      file.counted = file.bytes;
      if (parsed.ec == std::errc{} && parsed.ptr != sizes_end && *parsed.ptr == '/')
        parsed = std::from_chars(parsed.ptr + 1, sizes_end, file.counted);
      if (parsed.ec != std::errc{} || parsed.ptr != sizes_end)
        throw std::invalid_argument("an entry has no size");
      file.hash = text.substr(hash + 1, name - hash - 1);
      file.unreadable = file.hash == "?";
      if (file.hash == "-" || file.unreadable) file.hash.clear();
      identity.files[text.substr(name + 1)] = std::move(file);
    }
  } catch (const std::exception& error) {
    throw UserError(
        ExitCode::no_checkpoint,
        fmt::format("the checkpoint's list of training files cannot be read: {}", error.what()));
  }
  return identity;
}

std::string CorpusIdentity::difference(const CorpusIdentity& now) const {
  std::vector<std::string> added, gone, resized, rewritten;
  for (const auto& [name, file] : now.files) {
    const auto before = files.find(name);
    if (before == files.end()) {
      added.push_back(name);
    } else if (before->second.unreadable) {
      continue;
    } else if (before->second.bytes != file.bytes) {
      resized.push_back(
          fmt::format("{}: {} bytes, was {}", name, file.bytes, before->second.bytes));
    } else if (!file.hash.empty() && !before->second.hash.empty() &&
               file.hash != before->second.hash) {
      rewritten.push_back(name);
    }
  }
  for (const auto& [name, file] : files)
    if (!now.files.contains(name)) gone.push_back(name);
  std::string text;
  add_part(text, "new", added);
  add_part(text, "gone", gone);
  add_part(text, "of another size", resized);
  add_part(text, "of another content", rewritten);
  return text;
}

void check_split(const DataConfig& config, Split split) {
  // A corpus of its own: what is counted here must not count again when the split is scored.
  const Corpus corpus = Corpus::open(config);
  int64_t all = 0, documents = 0;
  const auto files = corpus.files(split);
  for (const CorpusFile& file : files) {
    const auto reader = corpus.read(file);
    Document document;
    for (int64_t bytes = 0; bytes < kCheckedPerFile && reader->next(document); ++documents)
      bytes += static_cast<int64_t>(document.text.size());
    all += std::min<int64_t>(kCheckedPerFile, static_cast<int64_t>(file.bytes));
    if (all >= kCheckedInAll) break;
  }
  if (documents == 0) {
    throw UserError(
        ExitCode::bad_data,
        fmt::format("{}: the {} split holds no text in {} files: put some there, or set "
                    "evaluation.split to another split, or evaluation.every to 0",
                    config.root, split_name(split), files.size()));
  }
}

}  // namespace polysketch
