// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace polysketch {

/// Cuts a stream of bytes into lines. A line longer than kLongest is given in pieces of that
/// length.
class LineCutter {
 public:
  static constexpr size_t kLongest = size_t{64} << 10;
  using Sink = std::function<void(std::string_view line)>;  ///< gets lines without their end

  void feed(std::string_view bytes, const Sink& sink);
  /// What was fed since the last line's end, if anything.
  void flush(const Sink& sink);

 private:
  std::string rest_;
};

/// Lines on their way to a descriptor that others may share: a terminal, a pipe, a file. Never
/// waits: what cannot be written stays here. To be written to when the descriptor polls as
/// writable. A descriptor that fails (nobody reads, disk full) is given up, and what comes later is
/// dropped.
class LineQueue {
 public:
  static constexpr size_t kFull = size_t{4} << 20;

  explicit LineQueue(int descriptor);
  ~LineQueue();
  LineQueue(const LineQueue&) = delete;
  LineQueue& operator=(const LineQueue&) = delete;

  void add(std::string_view text);  ///< one or more whole lines, with their ends
  void write_some();
  bool empty() const { return begin_ == pending_.size(); }
  bool full() const {
    return pending_.size() - begin_ >= kFull;
  }                                               ///< bring no more until it is not
  int descriptor() const { return descriptor_; }  ///< to poll for writing; -1: given up
  bool is_terminal() const { return terminal_; }
  int failure() const { return failure_; }  ///< errno of the write that failed, 0: none did

 private:
  int descriptor_ = -1;
  bool terminal_ = false;
  bool may_wait_ = false;  ///< a write of more than a poll promised could block
  int failure_ = 0;
  std::string pending_;
  size_t begin_ = 0;  // of what is not yet written
};

}  // namespace polysketch
