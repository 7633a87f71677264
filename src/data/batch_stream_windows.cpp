// SPDX-License-Identifier: Apache-2.0
#include "data/batch_stream_windows.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "data/token_cache.hpp"
#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {

TrainingWindows::TrainingWindows(SegmentLoader& loader, const ShuffleConfig& shuffle,
                                 int64_t context, uint64_t seed, int version)
    : loader_(loader),
      file_bytes_(sizes_of_files(loader.source())),
      rules_{shuffle, seed, version, loader.source().segment_bytes()},
      context_(context),
      next_{SegmentWalk(rules_, 0, file_bytes_)} {
  require(context >= 1, "a window needs a context");
}

void TrainingWindows::start_epoch(int64_t epoch, int64_t first_sequence) {
  epoch_ = epoch;
  epoch_first_ = first_sequence;
  stand_before({SegmentWalk(rules_, epoch, file_bytes_)});
}

void TrainingWindows::stand_before(const Place& place) {
  next_ = place;
  asked_ahead_ = false;
  first_ = place.given;
  own_ = 0;
  order_.reset();
  pools_.clear();
  tail_.clear();
  tail_begin_ = place.begin;
}

void TrainingWindows::read(int64_t sequence, int32_t* ids) {
  require(sequence - epoch_first_ >= first_, "training windows are read in rising order");
  if (sequence - epoch_first_ >= next_.given) {
    do {
      advance();
    } while (sequence - epoch_first_ >= next_.given);
    look_ahead();
  }
  copy(window_at((*order_)(sequence - epoch_first_ - first_)) * context_, context_ + 1, ids);
}

/// To the next turn, or the next epoch.
void TrainingWindows::advance() {
  let_go();
  first_ = next_.given;
  if (load_pool() || next_.given > first_) return;
  end_epoch(next_.begin);
  start_epoch(epoch_ + 1, epoch_first_ + per_epoch_);
}

/// Gives up the pools that the next turn takes nothing from, but for the tokens from the start of
/// the first window that ends behind them.
void TrainingWindows::let_go() {
  if (next_.kept_back > 0 && !pools_.empty()) {
    // At least two windows end in the last pool, and only its first one may begin before it: that
    // was given out.
    pools_.erase(pools_.begin(), pools_.end() - 1);
    tail_.clear();
    tail_begin_ = pools_.front().begin;
    return;
  }
  const int64_t begin = std::max(windows_within(next_.begin, context_) * context_, tail_begin_);
  std::vector<int32_t> tail(static_cast<size_t>(next_.begin - begin));
  copy(begin, next_.begin - begin, tail.data());
  tail_ = std::move(tail);
  tail_begin_ = begin;
  pools_.clear();
}

/// Loads the pool of the next turn and begins it. False if there is none: then only what was kept
/// back is left of the epoch.
bool TrainingWindows::load_pool() {
  std::vector<std::shared_ptr<const Segment>> segments;
  PoolContent content;
  while (!pool_is_complete(rules_, epoch_, next_.pool, content, next_.walk)) {
    const auto ref = next_.walk.peek();
    if (!ref) break;
    if (!asked_ahead_) asked_ahead_ = ask_for(next_.walk, content, next_.pool);
    if (auto segment = loader_.get(*ref)) {
      content.add(segment->counts());
      next_.walk.take(segment->summary().last);
      segments.push_back(std::move(segment));
    } else {
      next_.walk.drop();
    }
  }
  const bool any = !segments.empty();
  const int64_t pool = next_.pool;
  if (any) {
    pools_.push_back({TokenPool(rules_, epoch_, pool, std::move(segments)), next_.begin,
                      windows_within(next_.begin, context_)});
  }
  own_ = pass_windows(next_, content.counts.tokens);
  order_.emplace(rules_, epoch_, pool, next_.given - first_);
  asked_ahead_ = false;
  return any;
}

/// Moves a place, whose walk stands behind a pool already, to the next turn. Gives the number of
/// the pool's windows that its own turn gives out.
int64_t TrainingWindows::pass_windows(Place& place, int64_t tokens) const {
  const int64_t windows =
      windows_within(place.begin + tokens, context_) - windows_within(place.begin, context_);
  const int64_t kept_back = windows_kept_back(rules_, windows, place.walk);
  place.given += place.kept_back + windows - kept_back;
  place.kept_back = kept_back;
  place.begin += tokens;
  place.pool += 1;
  return windows - kept_back;
}

/// The window of the epoch that is the turn's `index`-th: first the windows of its own pool, of
/// which every second one may be kept back, then those that were kept back by the pool before.
int64_t TrainingWindows::window_at(int64_t index) const {
  if (index < own_) return pools_.back().first_window + (next_.kept_back > 0 ? 2 * index : index);
  return pools_.front().first_window + 2 * (index - own_) + 1;
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
  require(begin >= tail_begin_, "the tokens before the pools are gone");
  const auto part = [&](int64_t part_begin, int64_t tokens, const auto& copy_part) {
    const int64_t n = std::min(count, part_begin + tokens - begin);
    if (n <= 0) return;
    copy_part(begin - part_begin, n);
    begin += n;
    count -= n;
    out += n;
  };
  part(tail_begin_, static_cast<int64_t>(tail_.size()),
       [&](int64_t at, int64_t n) { std::copy_n(tail_.begin() + at, n, out); });
  for (const Loaded& pool : pools_) {
    part(pool.begin, pool.tokens.tokens(),
         [&](int64_t at, int64_t n) { pool.tokens.copy(at, n, out); });
  }
  require(count == 0, "the tokens behind the pools are not there yet");
}

/// Wants what a pool lacks beyond its content, and a segment more for each thread, taking files
/// whose end is not known yet for endless. Not more at once than keeps the threads busy, since
/// which segments make up the pool shows only as they come. True when there is nothing left to ask
/// for.
bool TrainingWindows::ask_for(SegmentWalk walk, PoolContent content, int64_t pool) {
  int64_t awaited = 0, more = loader_.threads();
  while (const auto ref = walk.peek()) {
    if (loader_.ended(*ref)) {
      walk.drop();
      continue;
    }
    if (pool_is_complete(rules_, epoch_, pool, content, walk) && more-- == 0) return awaited == 0;
    loader_.want(*ref);
    if (const auto summary = loader_.loaded(*ref)) {
      content.add(summary->counts);
      walk.take(summary->last);
      continue;
    }
    if (++awaited == 4 * loader_.threads()) return false;
    SegmentCounts expected;
    expected.bytes = segment_target(rules_.segment_bytes, ref->segment);
    expected.documents = expected.bytes;  // enough
    content.add(expected);
    walk.take(false);
  }
  return awaited == 0;
}

void TrainingWindows::look_ahead() {
  if (!asked_ahead_) asked_ahead_ = ask_for(next_.walk, {}, next_.pool);
}

/// Wants the next segments that were never tokenised, taking files whose end is not known yet for
/// endless.
void TrainingWindows::ask_for_unknown(SegmentWalk walk) {
  for (int64_t left = 2 * loader_.threads(); left > 0;) {
    const auto ref = walk.peek();
    if (!ref) return;
    if (loader_.ended(*ref)) {
      walk.drop();
      continue;
    }
    const auto known = loader_.source().look_up(*ref);
    if (known.known) {
      known.summary ? walk.take(known.summary->last) : walk.drop();
      continue;
    }
    loader_.want(*ref);
    walk.take(false);
    --left;
  }
}

/// Passes the turn at `place` without reading tokens; false at the end of the epoch.
bool TrainingWindows::pass_pool(Place& place, int64_t epoch) {
  PoolContent content;
  while (!pool_is_complete(rules_, epoch, place.pool, content, place.walk)) {
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
      ask_for_unknown(place.walk);
      const auto segment = loader_.get(*ref);
      known.summary = segment ? std::optional(segment->summary()) : std::nullopt;
    }
    if (known.summary) {
      content.add(known.summary->counts);
      place.walk.take(known.summary->last);
    } else {
      place.walk.drop();
    }
  }
  const int64_t given = place.given;
  pass_windows(place, content.counts.tokens);
  return content.segments > 0 || place.given > given;
}

/// Before the first turn whose pool is needed to read a window of an epoch. Nothing if the epoch
/// has fewer windows, whose number is then known.
std::optional<TrainingWindows::Place> TrainingWindows::find_window(int64_t epoch, int64_t window) {
  std::deque<Place> needed;
  Place place{SegmentWalk(rules_, epoch, file_bytes_)};
  for (;;) {
    // The pool before stays, also for what it may have kept back.
    const int64_t first_token = windows_within(place.begin, context_) * context_;
    needed.push_back(place);
    while (needed.size() > 1 && needed[1].begin <= first_token) needed.pop_front();
    if (!pass_pool(place, epoch)) {
      end_epoch(place.begin);
      return std::nullopt;
    }
    if (place.given > window) return needed.front();
  }
}

void TrainingWindows::seek(int64_t sequence) {
  start_epoch(0, 0);
  if (sequence == 0) return;
  auto place = find_window(0, sequence);
  if (!place) {
    const int64_t epoch = sequence / per_epoch_;
    start_epoch(epoch, epoch * per_epoch_);
    place = find_window(epoch, sequence % per_epoch_);
    require(place.has_value(), "epochs differ in their number of windows");
  }
  stand_before(*place);
}

}  // namespace polysketch
