// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace polysketch {

/// Whether a name relative to the root, '/' between its components, is one of `pattern`:
///
/// - `*` and `?` stand for characters of one component, but of no hidden one; the component `**`
///   stands for any number of folders, none of them hidden.
/// - The extension (what follows the last wildcard from the first dot on, or the last dot of a name
///   without wildcards) is compared without regard to case.
/// - A wildcard at the end does not take in what is no data (see unread_form).
bool matches_pattern(std::string_view pattern, std::string_view name);

/// One component against one component, by the first two of these rules.
bool matches_component(std::string_view pattern, std::string_view name);

/// The folder that the files of `pattern` share: what stands before `**`, else the parent of the
/// file. `name` is one that the pattern matches.
std::string shared_folder_of(std::string_view pattern, std::string_view name);

/// The pattern as people read it: `train/**/*.txt` as `train/*.txt`.
std::string shown_pattern(std::string_view pattern);

/// What a pattern's names begin with, in lower case, without separators at its end: `c4-train` of
/// `en/c4-train.*.json.gz`, nothing of `train/*.txt`.
std::string family_of(std::string_view pattern);

std::string parent_of(std::string_view name);
std::string base_of(std::string_view name);

/// Begins with a dot, or is a folder that systems keep for themselves (lost+found, __MACOSX, …).
bool is_hidden(std::string_view component);

/// Without regard to case; `extension` in lower case with its dot.
bool has_extension(std::string_view name, std::string_view extension);

/// Why a file cannot be data, by its extension: an unfinished download or a backup copy, a
/// compressed form other than gzip, a checksum. Reads on from `files …`. Nothing for all others.
std::optional<std::string> unread_form(std::string_view name);

/// Throws UserError 65 unless the name is relative, without `.`/`..` components and without NUL.
void require_inside(const std::string& name);

}  // namespace polysketch
