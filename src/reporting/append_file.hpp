// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace polysketch {

/// A file that grows at its end and may fail without harm: the first failure is named in one
/// warning, later writes do nothing. Each append is one write, so that a crash of the program loses
/// none and tears none.
class AppendFile {
 public:
  /// Opens or makes the file and its folder. `consequence` ends the warning: what it means that
  /// nothing can be written ("metrics.jsonl from here on is missing, the run goes on").
  AppendFile(std::string path, std::string consequence);
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  ~AppendFile();

  void append(std::string_view bytes);
  /// A line of a file to which several processes may append: it waits for the others, and begins a
  /// new line if one of them died within its own.
  void append_shared_line(std::string_view line);
  /// Makes what was appended durable.
  void sync();
  /// Goes on in `folder`, under the same name. The folder may be the old one, renamed. Where the
  /// file is not there (somebody removed it, or this is another folder) it is written with all that
  /// it holds; the former is told in a warning.
  void stay_in(const std::string& folder);

 private:
  void open();
  void fail(const std::string& reason);
  std::string path_, consequence_;
  int fd_ = -1;
};

}  // namespace polysketch
