// SPDX-License-Identifier: Apache-2.0
#include "data/batch_stream.hpp"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "data/batch_stream_windows.hpp"
#include "data/segment_loader.hpp"
#include "data/token_cache.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/stop_signal.hpp"

namespace polysketch {
namespace {

/// First 8 bytes (little endian) of SHA-256(sequence number as u64, ids as int32, both little
/// endian).
uint64_t row_digest(int64_t sequence, const int32_t* ids, int64_t count) {
  Sha256 hash;
  hash.update(&sequence, sizeof sequence);
  hash.update(ids, static_cast<size_t>(count) * sizeof(int32_t));
  const auto digest = hash.digest();
  uint64_t first = 0;
  std::memcpy(&first, digest.data(), sizeof first);
  return first;
}

}  // namespace

void number_documents(const int32_t* ids, int64_t count, int32_t eos, int32_t* documents) {
  int32_t document = 0;
  for (int64_t i = 0; i < count; ++i) {
    documents[i] = document;
    document += ids[i] == eos;
  }
}

struct BatchStream::State {
  struct Ready {
    Batch batch;
    int64_t epoch = 0;
  };

  const DataConfig config;
  const Options options;
  const int32_t eos;
  SegmentLoader loader;
  TrainingWindows windows;

  mutable std::mutex mutex;
  std::condition_variable filled, emptied;
  std::deque<Ready> ready;
  std::exception_ptr error;
  bool stopping = false;
  std::atomic<int64_t> windows_per_epoch{0};

  std::atomic<double> seconds_waited{0};
  std::atomic<int64_t> epoch{0};
  std::thread thread;

  State(const DataConfig& data, std::shared_ptr<SegmentSource> source, const Options& given)
      : config(data),
        options(given),
        eos(source->eos()),
        loader(source, tokeniser_threads(data.threads), true),
        windows(loader, data.shuffle, data.context, given.seed, given.order_version) {
    thread = std::thread([this] { run(); });
  }

  ~State() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    emptied.notify_all();
    loader.cancel();
    thread.join();
  }

  /// Fills the queue until told to stop; an error ends it and is kept for next().
  void run() {
    try {
      windows.seek(options.start_sequence);
      const int64_t own = options.sequences_per_step / options.world;
      for (int64_t step_first = options.start_sequence;; step_first += options.sequences_per_step) {
        const int64_t first = step_first + options.rank * own;
        for (int64_t row = 0; row < own; row += options.rows_per_batch) {
          Ready next = make(first + row);
          if (!push(std::move(next))) return;
        }
      }
    } catch (const Cancelled&) {
      return;
    } catch (...) {
      const std::lock_guard lock(mutex);
      error = std::current_exception();
    }
    filled.notify_all();
  }

  Ready make(int64_t first) {
    Ready result;
    Batch& batch = result.batch;
    batch.first_sequence = first;
    batch.rows = options.rows_per_batch;
    batch.context = config.context;
    const int64_t width = config.context + 1;
    batch.ids.resize(static_cast<size_t>(batch.rows * width));
    if (config.mask_documents) batch.documents.resize(batch.ids.size());
    for (int64_t row = 0; row < batch.rows; ++row) {
      int32_t* ids = batch.ids.data() + row * width;
      windows.read(first + row, ids);
      batch.digest += row_digest(first + row, ids, width);
      if (config.mask_documents)
        number_documents(ids, width, eos, batch.documents.data() + row * width);
    }
    result.epoch = windows.epoch();
    windows_per_epoch = windows.windows_per_epoch();
    return result;
  }

  /// False when the stream ends. Uses the time of waiting to ask for what comes next.
  bool push(Ready next) {
    std::unique_lock lock(mutex);
    const auto room = [&] {
      return stopping || static_cast<int64_t>(ready.size()) < options.prefetch;
    };
    while (!emptied.wait_for(lock, std::chrono::milliseconds(20), room)) {
      lock.unlock();
      windows.look_ahead();
      lock.lock();
    }
    if (stopping) return false;
    ready.push_back(std::move(next));
    filled.notify_one();
    return true;
  }
};

BatchStream::BatchStream(const DataConfig& config, const Corpus& corpus, const Tokenizer& tokenizer,
                         const Options& options)
    : BatchStream(config, TokenCache::open(config, corpus, Split::train, tokenizer), options) {}

BatchStream::BatchStream(const DataConfig& config, std::shared_ptr<SegmentSource> source,
                         const Options& options) {
  require(options.world >= 1 && options.rank >= 0 && options.rank < options.world,
          "rank outside the world");
  require(options.sequences_per_step >= 1 && options.sequences_per_step % options.world == 0,
          "sequences of a step do not divide by the world");
  require(options.rows_per_batch >= 1 &&
              options.sequences_per_step / options.world % options.rows_per_batch == 0,
          "rows of a batch do not divide a process's share of a step");
  require(options.start_sequence >= 0 && options.start_sequence % options.sequences_per_step == 0,
          "start lies inside a step");
  require(options.prefetch >= 1, "prefetch is at least one batch");
  if (options.order_version < kOrderVersion1 || options.order_version > kNewestOrder) {
    throw UserError(
        ExitCode::no_checkpoint,
        fmt::format("the run was begun with version {} of the order of training windows, this "
                    "program knows {} to {}: continue it with the program that wrote its "
                    "checkpoints, or choose another run.directory",
                    options.order_version, kOrderVersion1, kNewestOrder));
  }
  if (source->files() == 0)
    throw UserError(ExitCode::missing_input,
                    "the training split has no files: check data.root and data.corpus");
  state_ = std::make_unique<State>(config, std::move(source), options);
}

BatchStream::~BatchStream() = default;

Batch BatchStream::next() {
  using Clock = std::chrono::steady_clock;
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  const auto start = Clock::now();
  const auto waited = [&] {
    state.seconds_waited =
        state.seconds_waited + std::chrono::duration<double>(Clock::now() - start).count();
  };
  while (state.ready.empty() && !state.error) {
    if (state.options.world == 1 && StopSignal::requested()) {
      waited();
      return {};
    }
    state.filled.wait_for(lock, std::chrono::milliseconds(50));
  }
  waited();
  if (state.ready.empty()) std::rethrow_exception(state.error);
  State::Ready next = std::move(state.ready.front());
  state.ready.pop_front();
  state.epoch = next.epoch;
  lock.unlock();
  state.emptied.notify_one();
  return std::move(next.batch);
}

void BatchStream::wait_until_ready() {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  while (state.ready.empty() && !state.error && !StopSignal::requested())
    state.filled.wait_for(lock, std::chrono::milliseconds(50));
  if (state.ready.empty() && state.error) std::rethrow_exception(state.error);
}

double BatchStream::seconds_waited() const { return state_->seconds_waited; }

int64_t BatchStream::epoch() const { return state_->epoch; }

int64_t BatchStream::sequences_per_epoch() const { return state_->windows_per_epoch; }

}  // namespace polysketch
