// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "launch/lines.hpp"

namespace polysketch {

/// Standard output and error of this process, to which lines of ranks and messages of the launcher
/// go. If both are the same terminal, pipe or file they share one queue, so that lines stay whole.
class Screen {
 public:
  /// document: standard output is what rank 0 writes there, as it is and not before all is there.
  Screen(int64_t world, bool document);

  /// behind `[rank] `, in colour on a terminal
  void add_line(int64_t rank, bool error, std::string_view line);
  /// Whether what the rank writes is (a part of) the document.
  bool is_document(int64_t rank, bool error) const { return document_ && rank == 0 && !error; }
  void add_to_document(std::string_view bytes) { text_.append(bytes); }
  void
  give_document_up();   ///< another attempt will write it anew: this one's goes to standard error
  void end_document();  ///< it is whole: on its way to standard output
  void add_message(const std::string& text);  ///< to standard error
  /// Ranks must wait with more. Never after never_wait(), from when on lines that find no room are
  /// dropped: a rank that is to save and end must not be kept from it by a reader that does not
  /// read.
  bool full(bool error) const { return waits_ && queue(error).full(); }
  void never_wait() { waits_ = false; }
  bool empty() const { return out_.empty() && err_.empty(); }
  /// those to which something is to be written
  void add_descriptors(std::vector<pollfd>& descriptors) const;
  void write_some();
  /// Standard output is lost for another reason than that nobody reads it.
  bool lost_output() const;

 private:
  LineQueue& queue(bool error) { return error && !same_ ? err_ : out_; }
  const LineQueue& queue(bool error) const { return error && !same_ ? err_ : out_; }

  LineQueue out_, err_;
  bool same_, colour_, document_, warned_ = false, waits_ = true;
  std::string text_;  // of the document
  size_t digits_;
};

}  // namespace polysketch
