// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <stdexcept>

#include "checkpoint/strict_json.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"

namespace polysketch {
namespace {

using nlohmann::json;
constexpr const char* format_name = "polysketch-checkpoint";

[[noreturn]] void refuse(const std::string& defect) {
  throw std::invalid_argument("manifest.json " + defect);
}

const json& member(const json& object, const char* key, json::value_t type) {
  const auto found = object.find(key);
  if (found == object.end()) refuse(fmt::format("lacks the key '{}'", key));
  // Whole numbers that are not negative are of one kind to us, whichever way the library stores
  // them.
  if (found->type() != type && !(type == json::value_t::number_unsigned &&
                                 found->is_number_integer() && found->get<int64_t>() >= 0)) {
    refuse(fmt::format("has a {} at '{}', want a {}", found->type_name(), key,
                       json(type).type_name()));
  }
  return *found;
}

std::string text_at(const json& object, const char* key) {
  return member(object, key, json::value_t::string).get<std::string>();
}

uint64_t count_at(const json& object, const char* key) {
  const auto value = member(object, key, json::value_t::number_unsigned).get<uint64_t>();
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    refuse(fmt::format("has a number too large at '{}'", key));
  return value;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

json to_json(const FileRecord& file) {
  json crc = json::object();
  for (const auto& [tensor, value] : file.crc32c) crc[tensor] = value;
  return {{"name", file.name},
          {"bytes", file.bytes},
          {"sha256", file.sha256},
          {"crc32c", std::move(crc)}};
}

FileRecord file_from_json(const json& entry) {
  if (!entry.is_object()) refuse("has an entry of 'files' that is no object");
  FileRecord file;
  file.name = text_at(entry, "name");
  if (!is_plain_name(file.name))
    refuse(fmt::format("names a file outside its folder: '{}'", file.name));
  file.bytes = count_at(entry, "bytes");
  file.sha256 = text_at(entry, "sha256");
  if (!is_sha256(file.sha256)) refuse(fmt::format("has no SHA-256 for {}", file.name));
  for (const auto& [tensor, crc] : member(entry, "crc32c", json::value_t::object).items()) {
    if (!crc.is_number_unsigned() || crc.get<uint64_t>() > std::numeric_limits<uint32_t>::max())
      refuse(fmt::format("has no CRC-32C for tensor {}", tensor));
    file.crc32c[tensor] = crc.get<uint32_t>();
  }
  return file;
}

std::string manifest_text(const Manifest& manifest) {
  json files = json::array();
  for (const FileRecord& file : manifest.files) {
    require(is_plain_name(file.name), "a file of a checkpoint must have a plain name");
    files.push_back(to_json(file));
  }
  json document{{"format", format_name},     {"format_version", Manifest::format_version},
                {"step", manifest.step},     {"writers", manifest.writers},
                {"files", std::move(files)}, {"state", manifest.state}};
  document["sha256"] = sha256_hex(document.dump());
  return document.dump(1) + "\n";
}

Manifest parse_manifest(std::string_view text, const std::filesystem::path& path) {
  json document;
  try {
    document = parse_strict_json(text);
  } catch (const std::invalid_argument& defect) {
    refuse(defect.what());
  }
  if (text_at(document, "format") != format_name) refuse("is not that of a checkpoint");
  const std::string written = text_at(document, "sha256");
  document.erase("sha256");
  if (sha256_hex(document.dump()) != written) refuse("does not match its own hash");

  const uint64_t version = count_at(document, "format_version");
  if (version > static_cast<uint64_t>(Manifest::format_version)) {
    throw NewerFormat(ExitCode::no_checkpoint,
                      fmt::format("{}: format version {} of a newer polysketch, this one reads up "
                                  "to version {}; use the newer program",
                                  path.string(), version, Manifest::format_version));
  }
  if (version != static_cast<uint64_t>(Manifest::format_version))
    refuse(fmt::format("has the unknown format version {}", version));

  Manifest manifest;
  manifest.step = static_cast<int64_t>(count_at(document, "step"));
  // older ones had one
  if (document.contains("writers"))
    manifest.writers = static_cast<int64_t>(count_at(document, "writers"));
  std::set<std::string> names;
  for (const json& entry : member(document, "files", json::value_t::array)) {
    manifest.files.push_back(file_from_json(entry));
    if (!names.insert(manifest.files.back().name).second)
      refuse(fmt::format("lists {} twice", manifest.files.back().name));
  }
  manifest.state = member(document, "state", json::value_t::object);
  return manifest;
}

}  // namespace polysketch
