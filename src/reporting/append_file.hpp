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
  /// Opens or makes the file and its folder. `what` names it in the warning ("metrics.jsonl",
  /// "TensorBoard events").
  AppendFile(std::string path, std::string what);
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  ~AppendFile();

  void append(std::string_view bytes);
  /// Makes what was appended durable.
  void sync();

 private:
  void fail(const std::string& reason);
  std::string path_, what_;
  int fd_ = -1;
};

}  // namespace polysketch
