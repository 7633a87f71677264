// SPDX-License-Identifier: Apache-2.0
#include "launch/screen.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace polysketch {
namespace {

bool same_target(int a, int b) {
  struct stat one {
  }, two{};
  return ::fstat(a, &one) == 0 && ::fstat(b, &two) == 0 && one.st_dev == two.st_dev &&
         one.st_ino == two.st_ino;
}

bool wants_colour() {
  const char* terminal = std::getenv("TERM");
  const char* forbidden = std::getenv("NO_COLOR");
  return (forbidden == nullptr || *forbidden == '\0') && terminal != nullptr &&
         std::strcmp(terminal, "dumb") != 0;
}

}  // namespace

Screen::Screen(int64_t world, bool document)
    : out_(STDOUT_FILENO),
      err_(STDERR_FILENO),
      same_(same_target(STDOUT_FILENO, STDERR_FILENO)),
      colour_(wants_colour()),
      document_(document),
      digits_(std::to_string(world - 1).size()) {}

void Screen::add_line(int64_t rank, bool error, std::string_view line) {
  LineQueue& to = queue(error || document_);
  if (to.full()) return;
  if (colour_ && to.is_terminal()) {
    to.add(fmt::format("\033[{}m[{:{}}]\033[0m {}\n", 32 + rank % 5 /* not red */, rank, digits_,
                       line));
  } else {
    to.add(fmt::format("[{:{}}] {}\n", rank, digits_, line));
  }
}

void Screen::give_document_up() {
  LineCutter lines;
  const auto sink = [this](std::string_view line) { add_line(0, /*error=*/true, line); };
  lines.feed(text_, sink);
  lines.flush(sink);
  text_.clear();
}

void Screen::end_document() {
  if (!text_.empty()) out_.add(text_);
  text_.clear();
}

void Screen::add_message(const std::string& text) { queue(true).add(text + "\n"); }

void Screen::add_descriptors(std::vector<pollfd>& descriptors) const {
  for (const LineQueue* one : {&out_, &err_}) {
    if (!one->empty()) descriptors.push_back({one->descriptor(), POLLOUT, 0});
  }
}

void Screen::write_some() {
  out_.write_some();
  err_.write_some();
  if (warned_ || out_.failure() == 0 || same_ || (document_ && out_.failure() == EPIPE)) return;
  warned_ = true;
  add_message(fmt::format("[launch] warning: standard output is lost: {}; the ranks go on",
                          std::strerror(out_.failure())));
}

bool Screen::lost_output() const { return out_.failure() != 0 && out_.failure() != EPIPE; }

}  // namespace polysketch
