// SPDX-License-Identifier: Apache-2.0
#include "reporting/progress_bar.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

#include "reporting/number_text.hpp"
#include "support/log.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto quiet_time = std::chrono::seconds(1);
constexpr auto redraw_time = std::chrono::milliseconds(100);
constexpr auto line_time = std::chrono::seconds(30);

std::string amount(int64_t value, const std::string& unit) {
  if (unit == "B") return format_bytes(value);
  return value < 1'000'000 ? group_digits(value) : format_count(value);
}

std::string rate(double per_second, const std::string& unit) {
  if (unit == "B") return format_bytes(static_cast<int64_t>(per_second)) + "/s";
  // Slow work reads better as time for one.
  if (unit == "steps" && per_second > 0 && per_second < 1)
    return fmt::format("{} s/step", short_number(1 / per_second));
  return fmt::format("{} {}/s", short_rate(per_second), unit);
}

size_t terminal_columns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void put(const std::string& text) { (void)!::write(STDERR_FILENO, text.data(), text.size()); }

/// Cuts to `columns` characters without splitting one of several bytes.
std::string cut(std::string text, size_t columns) {
  size_t seen = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool begins = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (begins && seen++ == columns) return text.substr(0, i);
  }
  return text;
}

}  // namespace

struct ProgressBar::State {
  /// The terminal has one last row: of several bars the newest has it. The mutex guards every bar;
  /// it is taken after the log's, never before.
  struct Screen {
    std::mutex mutex;
    std::vector<State*> bars;
  };
  static Screen& screen();

  std::string title, unit, note;
  int64_t total = 0, done = 0, first_done = 0;
  bool any = false, terminal = false, drawn = false;
  Clock::time_point start = Clock::now(), last_shown = Clock::now();

  std::string describe(Clock::time_point now) const {
    std::string text = title + " ";
    if (total > 0)
      text +=
          fmt::format("{:3.0f} % ", 100.0 * static_cast<double>(done) / static_cast<double>(total));
    text += amount(done, unit);
    if (total > 0) text += "/" + amount(total, unit);
    if (unit != "B") text += " " + unit;
    const double seconds = std::chrono::duration<double>(now - start).count();
    // what an earlier run did says nothing about speed
    const auto moved = static_cast<double>(done - first_done);
    if (moved > 0 && seconds > 0) {
      text += ", " + rate(moved / seconds, unit);
      if (total > done)
        text += ", eta " + format_duration(seconds / moved * static_cast<double>(total - done));
    }
    if (!note.empty()) text += ", " + note;
    return text;
  }

  void draw(Clock::time_point now) {
    const size_t columns = terminal_columns();
    std::string line = describe(now);
    constexpr size_t cells = 24;
    if (total > 0 && line.size() + cells + 3 < columns) {
      const auto full = static_cast<size_t>(std::clamp<int64_t>(done, 0, total) *
                                            static_cast<int64_t>(cells) / total);
      std::string bar;
      for (size_t i = 0; i < cells; ++i) bar += i < full ? "█" : "░";
      line = bar + " " + line;
    }
    put("\r" + cut(line, columns - 1) + "\x1b[K");
    drawn = true;
    last_shown = now;
  }

  void erase() {
    if (drawn) put("\r\x1b[K");
    drawn = false;
  }
};

// Never destroyed: the log may call its hooks until the process ends.
ProgressBar::State::Screen& ProgressBar::State::screen() {
  static Screen* const screen = [] {
    auto* made = new Screen;
    // Held from before the line to after it, so that no other thread draws into it.
    set_log_hooks(
        [made] {
          made->mutex.lock();
          if (!made->bars.empty()) made->bars.back()->erase();
        },
        [made] {
          const auto now = Clock::now();
          if (!made->bars.empty() && now - made->bars.back()->start >= quiet_time)
            made->bars.back()->draw(now);
          made->mutex.unlock();
        });
    return made;
  }();
  return *screen;
}

ProgressBar::ProgressBar(std::string title, int64_t total, std::string unit) : state_(new State) {
  state_->title = std::move(title);
  state_->unit = std::move(unit);
  state_->total = total;
  state_->terminal = ::isatty(STDERR_FILENO) == 1;
  auto& screen = State::screen();
  const std::lock_guard guard(screen.mutex);
  if (!state_->terminal) return;
  if (!screen.bars.empty()) screen.bars.back()->erase();
  screen.bars.push_back(state_);
}

ProgressBar::~ProgressBar() {
  auto& screen = State::screen();
  const std::lock_guard guard(screen.mutex);
  state_->erase();
  screen.bars.erase(std::remove(screen.bars.begin(), screen.bars.end(), state_), screen.bars.end());
  delete state_;
}

void ProgressBar::update(int64_t done, const std::string& note) {
  std::string line;
  {
    auto& screen = State::screen();
    const std::lock_guard guard(screen.mutex);
    State& state = *state_;
    const auto now = Clock::now();
    if (!std::exchange(state.any, true)) {
      state.first_done = done;
      state.start = now;
    }
    state.done = done;
    state.note = note;
    if (state.terminal) {
      if (screen.bars.back() == state_ && now - state.start >= quiet_time &&
          now - state.last_shown >= redraw_time)
        state.draw(now);
    } else if (now - state.last_shown >= line_time) {
      line = state.describe(now);
      state.last_shown = now;
    }
  }
  // Outside the lock, for the log takes its own first and ours within.
  if (!line.empty()) log_info(line);
}

void ProgressBar::set_total(int64_t total) {
  const std::lock_guard guard(State::screen().mutex);
  state_->total = total;
}

}  // namespace polysketch
