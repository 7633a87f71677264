// SPDX-License-Identifier: Apache-2.0
#include "launch/lines.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace polysketch {

void LineCutter::feed(std::string_view bytes, const Sink& sink) {
  while (!bytes.empty()) {
    const size_t room = kLongest - rest_.size();
    const size_t end = bytes.substr(0, room + 1).find('\n');
    const size_t taken = end == std::string_view::npos ? std::min(room, bytes.size()) : end;
    if (end == std::string_view::npos && taken == bytes.size()) {
      rest_.append(bytes);
      return;
    }
    if (rest_.empty()) {
      sink(bytes.substr(0, taken));
    } else {
      rest_.append(bytes.substr(0, taken));
      sink(rest_);
      rest_.clear();
    }
    bytes.remove_prefix(end == std::string_view::npos ? taken : taken + 1);
  }
}

void LineCutter::flush(const Sink& sink) {
  if (!rest_.empty()) sink(rest_);
  rest_.clear();
}

LineQueue::LineQueue(int descriptor) : terminal_(::isatty(descriptor) == 1) {
  // A terminal or pipe may make a writer wait. O_NONBLOCK on the descriptor itself would be felt by
  // all who share it, so it is opened anew.
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return;
  // One that stands for a descriptor that was closed must not become writable by that.
  const bool writable = (::fcntl(descriptor, F_GETFL) & O_ACCMODE) != O_RDONLY;
  if (writable && (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode))) {
    descriptor_ = ::open(fmt::format("/proc/self/fd/{}", descriptor).c_str(),
                         O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  }
  may_wait_ = descriptor_ < 0 && !S_ISREG(status.st_mode);
  if (descriptor_ < 0) descriptor_ = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
}

LineQueue::~LineQueue() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void LineQueue::add(std::string_view text) {
  if (descriptor_ < 0) return;
  if (begin_ > kFull) {
    pending_.erase(0, begin_);
    begin_ = 0;
  }
  pending_.append(text);
}

void LineQueue::write_some() {
  while (descriptor_ >= 0 && !empty()) {
    // A pipe that polls as writable takes PIPE_BUF once without waiting.
    const ssize_t written = ::write(descriptor_, pending_.data() + begin_,
                                    std::min<size_t>(pending_.size() - begin_, PIPE_BUF));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) return;
    if (written < 0) {
      failure_ = errno;
      ::close(descriptor_);
      descriptor_ = -1;
      begin_ = pending_.size();
      break;
    }
    begin_ += static_cast<size_t>(written);
    if (may_wait_) break;
  }
  if (empty()) {
    pending_.clear();
    begin_ = 0;
  }
}

}  // namespace polysketch
