// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "data/batch_source.hpp"
#include "data/corpus.hpp"
#include "data/sample_order.hpp"
#include "data/segment_source.hpp"
#include "data/tokenizer.hpp"

namespace polysketch {

/// The training windows of a corpus in an order that is a pure function of (seed, epoch, position),
/// prefetched on own threads.
///
/// The global order is the same for any number of processes and threads: with W processes,
/// optimiser step n takes the global sequences [n*G, (n+1)*G), G = batch_tokens / T; process r
/// takes the r-th of W equal parts of each step, in order.
class BatchStream final : public BatchSource {
 public:
  struct Options {
    int64_t rank = 0;
    int64_t world = 1;
    int64_t sequences_per_step = 1;  ///< G, divisible by world
    int64_t rows_per_batch = 1;      ///< of one call of next(); divides G / world
    int64_t start_sequence = 0;      ///< a multiple of G
    int64_t prefetch = 4;            ///< batches held ready
    uint64_t seed = 1;
    int order_version = kNewestOrder;  ///< of a run that goes on: the one it began with
  };

  /// Returns at once; the first tokens are made in the background. Throws UserError for a corpus
  /// without files, and for an order that this program does not know.
  BatchStream(const DataConfig& config, const Corpus& corpus, const Tokenizer& tokenizer,
              const Options& options);
  /// The same over any source of segments.
  BatchStream(const DataConfig& config, std::shared_ptr<SegmentSource> source,
              const Options& options);
  ~BatchStream() override;

  /// The next rows of this process. Waits if they are not ready. Throws UserError of a reader's
  /// thread here. When a stop is requested (StopSignal) while waiting, returns a batch with rows ==
  /// 0; but not one of several processes, whose step all the others have begun too.
  Batch next() override;

  /// Waits until the first batch is there, without taking it. Throws what next() would throw;
  /// returns early when a stop is requested.
  void wait_until_ready();

  double seconds_waited() const override;
  int64_t epoch() const;  ///< of the last batch returned
  /// 0 while it is not yet known (first epoch over files never tokenised before)
  int64_t sequences_per_epoch() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Number of the document each id belongs to, counted from 0 within the row; an EOS belongs to the
/// document it ends.
void number_documents(const int32_t* ids, int64_t count, int32_t eos, int32_t* documents);

/// One window of an evaluation split: predicts ids[first_target …] from what stands before.
struct EvaluationWindow {
  std::vector<int32_t> ids;        ///< [<= N + 1], not padded
  std::vector<int32_t> documents;  ///< like Batch::documents; empty unless data.mask_documents
  int64_t first_target =
      1;  ///< index into ids of the first token that is scored here (1 for non-overlapping windows)
};

/// What a split holds; complete once next() has returned false. With max_tokens: what the documents
/// hold that the scored tokens lie in.
struct SplitCounts {
  int64_t documents = 0, tokens = 0, scored = 0, bytes = 0, words = 0, unknown = 0;
};

/// All tokens of a split in file order, EOS after each document, in windows of N + 1 ids with the
/// given stride (stride N: every token is a target once, except the very first of the split). With
/// rank and world, windows are dealt out in turn; counts are of the whole split.
class EvaluationStream {
 public:
  struct Options {
    int64_t context = 1024;  ///< N
    int64_t stride = 0;      ///< 0: N
    int64_t max_tokens = 0;  ///< scored tokens, over all ranks; 0: all
    int64_t rank = 0, world = 1;
  };
  EvaluationStream(const DataConfig& config, const Corpus& corpus, Split split,
                   const Tokenizer& tokenizer, const Options& options);
  /// The same over any source of segments.
  EvaluationStream(const DataConfig& config, std::shared_ptr<SegmentSource> source,
                   const Options& options);
  ~EvaluationStream();
  bool next(EvaluationWindow& window);
  const SplitCounts& counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace polysketch
