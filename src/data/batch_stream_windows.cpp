// SPDX-License-Identifier: Apache-2.0
#include "data/batch_stream_windows.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {

TrainingWindows::TrainingWindows(SegmentLoader& loader, const ShuffleConfig& shuffle,
                                 int64_t context, uint64_t seed)
    : loader_(loader),
      shuffle_(shuffle),
      context_(context),
      seed_(seed),
      walk_(shuffle, seed, 0, loader.source().files()) {
  require(context >= 1, "a window needs a context");
}

void TrainingWindows::start_epoch(int64_t epoch, int64_t first_sequence) {
  epoch_ = epoch;
  epoch_first_ = first_sequence;
  walk_ = SegmentWalk(shuffle_, seed_, epoch, loader_.source().files());
  next_pool_ = 0;
  pool_.reset();
  order_.reset();
  pool_begin_ = pool_end_ = first_window_ = last_window_ = tail_begin_ = 0;
  tail_.clear();
}

void TrainingWindows::read(int64_t sequence, int32_t* ids) {
  const int64_t wanted = sequence - epoch_first_;
  require(wanted >= first_window_, "training windows are read in rising order");
  if (wanted >= last_window_) {
    do {
      advance();
    } while (sequence - epoch_first_ >= last_window_);
    look_ahead();
  }
  const int64_t position = sequence - epoch_first_ - first_window_;
  copy((first_window_ + (*order_)(position)) * context_, context_ + 1, ids);
}

/// To the next pool, or the next epoch.
void TrainingWindows::advance() {
  keep_tail();
  load_pool();
  if (!pool_) {
    end_epoch(pool_begin_);
    start_epoch(epoch_ + 1, epoch_first_ + per_epoch_);
  }
}

/// Before the pool is given up: keeps the tokens from the start of the first window that does not
/// end in it.
void TrainingWindows::keep_tail() {
  const int64_t begin = std::max(windows_within(pool_end_, context_) * context_, tail_begin_);
  std::vector<int32_t> tail(static_cast<size_t>(pool_end_ - begin));
  copy(begin, pool_end_ - begin, tail.data());
  tail_ = std::move(tail);
  tail_begin_ = begin;
  pool_begin_ = pool_end_;
  pool_.reset();
}

/// Loads the pool that begins at pool_begin_; none at the end of the epoch.
void TrainingWindows::load_pool() {
  std::vector<std::shared_ptr<const Segment>> segments;
  const auto size = static_cast<size_t>(pool_segments(shuffle_, next_pool_));
  while (segments.size() < size) {
    const auto ref = walk_.peek();
    if (!ref) break;
    ask_for(walk_, static_cast<int64_t>(size - segments.size()) + loader_.threads(), false);
    if (auto segment = loader_.get(*ref)) {
      segments.push_back(std::move(segment));
      walk_.take();
    } else {
      walk_.drop();
    }
  }
  if (segments.empty()) return;
  pool_.emplace(shuffle_, seed_, epoch_, next_pool_, std::move(segments));
  pool_end_ = pool_begin_ + pool_->tokens();
  first_window_ = windows_within(pool_begin_, context_);
  last_window_ = windows_within(pool_end_, context_);
  order_.emplace(shuffle_, seed_, epoch_, next_pool_, last_window_ - first_window_);
  ++next_pool_;
}

void TrainingWindows::end_epoch(int64_t tokens) {
  per_epoch_ = windows_within(tokens, context_);
  if (per_epoch_ == 0) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("the training files hold {} tokens in {} files, one window takes "
                                "data.context + 1 = {}: "
                                "bring more text or lower data.context",
                                tokens, loader_.source().files(), context_ + 1));
  }
}

void TrainingWindows::copy(int64_t begin, int64_t count, int32_t* out) const {
  if (begin < pool_begin_) {
    require(begin >= tail_begin_, "the tokens before the pool are gone");
    const int64_t n = std::min(count, pool_begin_ - begin);
    std::copy_n(tail_.begin() + (begin - tail_begin_), n, out);
    begin += n;
    count -= n;
    out += n;
  }
  if (count > 0) pool_->copy(begin - pool_begin_, count, out);
}

/// Wants the next segments of the walk, taking files whose end is not known yet for endless.
void TrainingWindows::ask_for(SegmentWalk walk, int64_t segments, bool only_unknown) {
  while (segments > 0) {
    const auto ref = walk.peek();
    if (!ref) return;
    if (loader_.ended(*ref)) {
      walk.drop();
      continue;
    }
    if (only_unknown) {
      const auto known = loader_.source().look_up(*ref);
      if (known.known) {
        known.summary ? walk.take() : walk.drop();
        continue;
      }
    }
    loader_.want(*ref);
    walk.take();
    --segments;
  }
}

void TrainingWindows::look_ahead() {
  ask_for(walk_, pool_segments(shuffle_, next_pool_) + loader_.threads(), false);
}

/// Counts the tokens of the pool at `place` and moves behind it; nothing at the end of the epoch.
std::optional<int64_t> TrainingWindows::pass_pool(Place& place) {
  int64_t tokens = 0;
  bool any = false;
  for (int64_t left = pool_segments(shuffle_, place.pool); left > 0;) {
    const auto ref = place.walk.peek();
    if (!ref) break;
    auto known = loader_.source().look_up(*ref);
    if (!known.known || loader_.asked(*ref)) {
      if (!known.known && !said_tokenising_) {
        log_info(
            fmt::format("{} and what follows are not in the token cache: tokenising them to find "
                        "the place in the data",
                        loader_.source().file_name(ref->file)));
        said_tokenising_ = true;
      }
      ask_for(place.walk, 2 * loader_.threads(), true);
      const auto segment = loader_.get(*ref);
      known.summary = segment ? std::optional(segment->summary()) : std::nullopt;
    }
    if (known.summary) {
      tokens += known.summary->counts.tokens;
      any = true;
      --left;
      place.walk.take();
    } else {
      place.walk.drop();
    }
  }
  place.begin += tokens;
  place.pool += 1;
  return any ? std::optional(tokens) : std::nullopt;
}

/// The pools, in order, that are needed to read a window of an epoch: the last one holds its end.
/// Empty if the epoch has fewer windows; `windows` then says how many.
std::vector<TrainingWindows::Place> TrainingWindows::find_window(int64_t epoch, int64_t window,
                                                                 int64_t& windows) {
  std::vector<Place> needed;
  Place place{SegmentWalk(shuffle_, seed_, epoch, loader_.source().files())};
  for (;;) {
    needed.push_back(place);
    const int64_t first_token = windows_within(place.begin, context_) * context_;
    while (needed.size() > 1 && needed[1].begin <= first_token) needed.erase(needed.begin());
    if (!pass_pool(place)) {
      end_epoch(place.begin);
      windows = per_epoch_;
      return {};
    }
    if (windows_within(place.begin, context_) > window) return needed;
  }
}

void TrainingWindows::seek(int64_t sequence) {
  start_epoch(0, 0);
  if (sequence == 0) return;
  int64_t windows = 0;
  auto places = find_window(0, sequence, windows);
  if (places.empty()) {
    const int64_t epoch = sequence / windows;
    start_epoch(epoch, epoch * windows);
    places = find_window(epoch, sequence % windows, windows);
    require(!places.empty(), "epochs differ in their number of windows");
  }
  walk_ = places.front().walk;
  next_pool_ = places.front().pool;
  pool_begin_ = pool_end_ = tail_begin_ = places.front().begin;
  first_window_ = last_window_ = windows_within(pool_begin_, context_);
}

}  // namespace polysketch
