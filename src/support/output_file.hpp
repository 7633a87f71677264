// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace polysketch {

/// Where a command puts a result that the user named a place for, as other programs do it:
///
/// * `-` is standard output.
/// * A device, a pipe, a socket, and what stands for an open descriptor (/dev/stdout, /dev/fd/3),
///   are written into and stay what they are.
/// * A regular file is replaced as a whole or not at all, and keeps its permissions and owner.
/// Where
///   its folder does not allow that (a file that is mounted on its own, a folder that may not be
///   written), it is written into.
/// * A symbolic link stays; what it leads to, over any number of links, is treated as above. If
/// that
///   does not exist it is made.
///
/// The folder must exist. Files inside a run folder are not the user's to place: those are
/// DurableFiles.
class OutputFile {
 public:
  /// Looks at once whether anything can be written there, so that no hour of work is lost to a
  /// slip. Nothing is left there by that. option: as the user wrote it ("--output"), for messages.
  /// Throws UserError 64 (no name), 73 (a folder, a folder that does not exist), 77, 74.
  OutputFile(std::string option, const std::string& name);

  /// Whole content. Throws UserError 73, 74, 77, ReaderGone if nobody reads the pipe any more.
  void write(std::string_view content) const;

  /// Messages and figures must then go elsewhere.
  bool is_standard_output() const { return descriptor_ == 1; }
  /// A file that lasts, beside which others may lie.
  bool is_regular() const { return replace_ || in_place_; }
  /// Where it really went: "standard output", "latest.html -> runs/7.html".
  const std::string& place() const { return place_; }

 private:
  [[noreturn]] void fail(std::string_view action, int error) const;
  void follow_links();
  void look_at_target();
  void write_into(int flags, std::string_view content) const;

  std::string option_, name_, place_;
  std::filesystem::path target_;  ///< behind all links
  bool replace_ = false;          ///< by a new file of the same name
  bool in_place_ = false;         ///< a regular file that cannot be replaced
  bool others_ = false;           ///< another process has it open (/proc/PID/fd/N)
  bool socket_ = false;
  std::optional<int> descriptor_;  ///< one that this process has open already
};

}  // namespace polysketch
