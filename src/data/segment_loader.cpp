// SPDX-License-Identifier: Apache-2.0
#include "data/segment_loader.hpp"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "support/threads.hpp"

namespace polysketch {

int64_t tokeniser_threads(int64_t configured) {
  if (configured > 0) return configured;
  return std::max<int64_t>(1, static_cast<int64_t>(std::thread::hardware_concurrency()) - 1);
}

SegmentLoader::SegmentLoader(std::shared_ptr<SegmentSource> source, int64_t threads,
                             bool background)
    : source_(std::move(source)) {
  start_threads(workers_, threads, [this, background] { work(background); });
}

SegmentLoader::~SegmentLoader() {
  cancel();
  for (auto& worker : workers_) worker.join();
}

void SegmentLoader::cancel() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  source_->cancel();
  queued_.notify_all();
  finished_.notify_all();
}

void SegmentLoader::want(const SegmentRef& ref) {
  const std::lock_guard lock(mutex_);
  if (!slots_.try_emplace(ref).second) return;
  queue_.push_back(ref);
  queued_.notify_one();
}

std::shared_ptr<const Segment> SegmentLoader::get(const SegmentRef& ref) {
  std::unique_lock lock(mutex_);
  const auto end = file_ends_.find(ref.file);
  if (end != file_ends_.end() && ref.segment >= end->second) return nullptr;
  const auto [slot, fresh] = slots_.try_emplace(ref);
  if (fresh) {
    queue_.push_front(ref);
    queued_.notify_one();
  }
  finished_.wait(lock, [&, &state = slot->second] { return state.done || stopping_; });
  if (!slot->second.done) throw Cancelled();
  const Slot result = std::move(slot->second);
  slots_.erase(slot);
  if (result.error) std::rethrow_exception(result.error);
  return result.segment;
}

bool SegmentLoader::asked(const SegmentRef& ref) const {
  const std::lock_guard lock(mutex_);
  return slots_.contains(ref);
}

std::optional<SegmentSummary> SegmentLoader::loaded(const SegmentRef& ref) const {
  const std::lock_guard lock(mutex_);
  const auto slot = slots_.find(ref);
  if (slot == slots_.end() || !slot->second.segment) return std::nullopt;
  return slot->second.segment->summary();
}

bool SegmentLoader::ended(const SegmentRef& ref) const {
  const std::lock_guard lock(mutex_);
  const auto end = file_ends_.find(ref.file);
  return end != file_ends_.end() && ref.segment >= end->second;
}

void SegmentLoader::work(bool background) {
  if (background) setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 10);
  std::unique_lock lock(mutex_);
  for (;;) {
    queued_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const SegmentRef ref = queue_.front();
    queue_.pop_front();
    lock.unlock();
    Slot result;
    try {
      result.segment = source_->load(ref);
    } catch (...) {
      result.error = std::current_exception();
    }
    result.done = true;
    lock.lock();
    if (!result.error) {
      if (!result.segment) {
        const auto [end, fresh] = file_ends_.try_emplace(ref.file, ref.segment);
        if (!fresh) end->second = std::min(end->second, ref.segment);
      } else if (result.segment->summary().last) {
        file_ends_[ref.file] = ref.segment + 1;
      }
    }
    slots_[ref] = std::move(result);
    finished_.notify_all();
  }
}

}  // namespace polysketch
