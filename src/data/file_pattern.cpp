// SPDX-License-Identifier: Apache-2.0
#include "data/file_pattern.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

constexpr std::string_view kAnyFolders = "**";

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// Where the extension of a pattern's component begins, or its end.
size_t extension_begin(std::string_view part) {
  const size_t wildcard = part.find_last_of("*?");
  const size_t dot =
      wildcard == std::string_view::npos ? part.rfind('.') : part.find('.', wildcard);
  return std::min(dot, part.size());
}

std::string_view first_of(std::string_view path) { return path.substr(0, path.find('/')); }
std::string_view rest_of(std::string_view path) {
  const size_t slash = path.find('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
}

bool matches_path(std::string_view pattern, std::string_view name) {
  while (true) {
    const bool last_pattern = pattern.find('/') == std::string_view::npos;
    const bool last_name = name.find('/') == std::string_view::npos;
    if (!last_pattern && first_of(pattern) == kAnyFolders) {
      if (matches_path(rest_of(pattern), name)) return true;
      if (last_name || is_hidden(first_of(name))) return false;
      name = rest_of(name);
      continue;
    }
    if (last_pattern != last_name || !matches_component(first_of(pattern), first_of(name)))
      return false;
    if (last_pattern) return true;
    pattern = rest_of(pattern);
    name = rest_of(name);
  }
}

}  // namespace

bool matches_component(std::string_view pattern, std::string_view name) {
  if (is_hidden(name) && !is_hidden(pattern)) return false;
  const size_t extension = extension_begin(pattern);
  const auto same = [&](size_t p, size_t n) {
    if (pattern[p] == '?') return true;
    return p < extension ? pattern[p] == name[n] : lower(pattern[p]) == lower(name[n]);
  };
  size_t p = 0, n = 0, star = std::string_view::npos, star_name = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_name = n;
    } else if (p < pattern.size() && same(p, n)) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++star_name;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool matches_pattern(std::string_view pattern, std::string_view name) {
  if (!pattern.empty() && (pattern.back() == '*' || pattern.back() == '?') && unread_form(name))
    return false;
  return matches_path(pattern, name);
}

std::string shared_folder_of(std::string_view pattern, std::string_view name) {
  size_t end = 0;  // of the components before `**`, in both
  for (; !pattern.empty(); pattern = rest_of(pattern)) {
    if (first_of(pattern) == kAnyFolders) return std::string(name.substr(0, end > 0 ? end - 1 : 0));
    end = std::min(name.find('/', end), name.size() - 1) + 1;
  }
  return parent_of(name);
}

std::string shown_pattern(std::string_view pattern) {
  std::string shown(pattern);
  if (const size_t at = shown.find("**/"); at != std::string::npos) shown.erase(at, 3);
  return shown;
}

std::string family_of(std::string_view pattern) {
  std::string family = base_of(pattern);
  family = ascii_lower(family.substr(0, family.find_first_of("*?.")));
  while (!family.empty() && (family.back() == '-' || family.back() == '_')) family.pop_back();
  return family;
}

std::string parent_of(std::string_view name) {
  const size_t slash = name.rfind('/');
  return std::string(name.substr(0, slash == std::string_view::npos ? 0 : slash));
}

std::string base_of(std::string_view name) {
  const size_t slash = name.rfind('/');
  return std::string(name.substr(slash == std::string_view::npos ? 0 : slash + 1));
}

bool is_hidden(std::string_view component) {
  constexpr std::array<std::string_view, 5> kOfTheSystem = {
      "lost+found", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"};
  return component.starts_with('.') ||
         std::find(kOfTheSystem.begin(), kOfTheSystem.end(), component) != kOfTheSystem.end();
}

bool has_extension(std::string_view name, std::string_view extension) {
  return name.size() > extension.size() &&
         ascii_lower(name.substr(name.size() - extension.size())) == extension;
}

std::optional<std::string> unread_form(std::string_view name) {
  constexpr std::array<std::string_view, 11> kUnfinished = {
      ".part",       ".partial", ".tmp",   ".temp", ".crdownload", ".download",
      ".incomplete", ".aria2",   ".gstmp", ".bak",  ".swp"};
  constexpr std::array<std::string_view, 14> kCompressed = {
      ".zst", ".zstd", ".bz2", ".xz",  ".lzma", ".lz4", ".zip",
      ".7z",  ".rar",  ".br",  ".tar", ".tgz",  ".z",   ".sz"};
  constexpr std::array<std::string_view, 7> kChecksums = {".md5",   ".sha1", ".sha256", ".sha512",
                                                          ".crc32", ".asc",  ".sig"};
  const auto one_of = [&](const auto& extensions) {
    return std::any_of(extensions.begin(), extensions.end(),
                       [&](std::string_view one) { return has_extension(name, one); });
  };
  if (one_of(kUnfinished) || name.ends_with('~'))
    return "unfinished, temporary or kept as a backup";
  if (one_of(kCompressed)) return "packed in a form that is not read (only gzip is)";
  if (one_of(kChecksums)) return "with checksums or signatures";
  return std::nullopt;
}

void require_inside(const std::string& name) {
  bool bad = name.empty() || name.front() == '/' || name.find('\0') != std::string::npos;
  for (size_t begin = 0; !bad && begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = std::string_view(name).substr(begin, end - begin);
    bad = part.empty() || part == "." || part == "..";
    begin = end + 1;
  }
  if (bad)
    throw UserError(
        ExitCode::bad_data,
        fmt::format("'{}': is not a name inside the corpus folder: use relative names without '..'",
                    name));
}

}  // namespace polysketch
