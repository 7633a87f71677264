// SPDX-License-Identifier: Apache-2.0
#include "data/token_cache_prepare.hpp"

#include <algorithm>
#include <mutex>
#include <thread>
#include <vector>

#include "data/order_mixing.hpp"
#include "support/error.hpp"
#include "support/stop_signal.hpp"
#include "support/threads.hpp"

namespace polysketch {
namespace {

/// Deals segments out to threads: of one file until its end shows, then of the next.
class Preparation {
 public:
  Preparation(TokenCache& cache, int64_t files,
              const std::function<void(const PrepareProgress&)>& progress)
      : cache_(cache), files_(files), running_(static_cast<size_t>(files)), progress_(progress) {}

  void run(int64_t threads) {
    std::vector<std::thread> workers;
    start_threads(workers, threads, [this] { work(); });
    for (auto& worker : workers) worker.join();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (at_.file < files_ && !error_) {
      const SegmentRef ref = at_;
      ++at_.segment;
      ++running_[static_cast<size_t>(ref.file)];
      lock.unlock();
      bool exists = false;
      std::exception_ptr error;
      try {
        if (StopSignal::requested()) {
          throw UserError(ExitCode::stopped,
                          "stopped on request (" + signal_name(StopSignal::number()) +
                              "); what is tokenised stays in the cache: start the same command "
                              "again");
        }
        exists = cache_.load(ref) != nullptr;
      } catch (const Cancelled&) {
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      if (error && !error_) {
        error_ = error;
        cache_.cancel();  // so that the other threads need not finish their segments
      }
      if (!exists && at_.file == ref.file) at_ = {ref.file + 1, 0};
      if (--running_[static_cast<size_t>(ref.file)] == 0 && at_.file > ref.file) ++done_;
      if (progress_ && !error_) progress_({done_, files_, cache_.work()});
    }
  }

  TokenCache& cache_;
  const int64_t files_;
  std::mutex mutex_;
  SegmentRef at_;
  std::vector<int> running_;  // threads at work in each file
  int64_t done_ = 0;
  std::exception_ptr error_;
  const std::function<void(const PrepareProgress&)>& progress_;
};

int64_t limited(int64_t files, int64_t all) { return files > 0 ? std::min(files, all) : all; }

}  // namespace

void prepare_tokens(TokenCache& cache, int64_t files, int64_t threads,
                    const std::function<void(const PrepareProgress&)>& progress) {
  Preparation(cache, limited(files, cache.files()), progress).run(std::max<int64_t>(threads, 1));
}

SplitInspection inspect_tokens(TokenCache& cache, int64_t files, const Tokenizer& tokenizer) {
  SplitInspection result;
  result.files = limited(files, cache.files());
  std::vector<uint64_t> hashes;
  std::vector<int32_t> ids;
  for (int64_t file = 0; file < result.files; ++file) {
    result.file_bytes += cache.file_bytes(file);
    for (int64_t number = 0; const auto segment = cache.load({file, number}); ++number) {
      result.counts += segment->counts();
      ids.resize(static_cast<size_t>(segment->counts().tokens));
      segment->copy(0, segment->counts().tokens, ids.data());
      count_ids(ids, result.histogram);
      uint64_t begin = 0;
      for (const auto& document : segment->documents()) {
        hashes.push_back(document.hash);
        result.longest = std::max(result.longest, static_cast<int64_t>(document.end - begin));
        begin = document.end;
      }
    }
  }
  for (size_t id = 0; id < result.histogram.size(); ++id) {
    if (tokenizer.is_byte(static_cast<int32_t>(id))) result.byte_pieces += result.histogram[id];
  }
  std::sort(hashes.begin(), hashes.end());
  result.duplicates =
      static_cast<int64_t>(hashes.end() - std::unique(hashes.begin(), hashes.end()));
  return result;
}

}  // namespace polysketch
