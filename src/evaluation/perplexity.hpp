// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "data/batch_stream.hpp"
#include "distributed/collectives.hpp"
#include "model/transformer.hpp"
#include "support/error.hpp"

namespace polysketch {

/// Negative log-likelihood of a split. Sums are in fp64.
struct Perplexity {
  double nats = 0;     ///< over the scored tokens
  SplitCounts counts;  ///< of the whole split (of the part that was read, if `complete` is false)
  int64_t words = 0;   ///< published number where the split is the full published one, else counted
  bool complete = true;  ///< every token of the split was scored
  double seconds = 0;

  double nats_per_token() const { return nats / static_cast<double>(counts.scored); }
  double per_token() const;
  double bits_per_byte() const;  ///< only if complete
  double per_word() const;       ///< only if complete
};

/// Another process that shares the work has met an error, which it reports itself.
class FailedElsewhere : public UserError {
 public:
  FailedElsewhere()
      : UserError(ExitCode::distributed, "another process has met an error while scoring") {}
};

struct PerplexityOptions {
  Split split = Split::validation;
  int64_t context = 1024;       ///< N
  int64_t stride = 0;           ///< 0: N (non-overlapping windows)
  int64_t max_tokens = 0;       ///< 0: the whole split
  int64_t batch_tokens = 8192;  ///< of one forward
  int64_t rows() const {
    return std::max<int64_t>(1, batch_tokens / context);
  }  ///< windows of one forward
  std::function<bool()>
      stop;  ///< polled between forwards; of several processes one that says yes stops all
  /// the processes that share the work: each scores its windows, all get the same figures
  Collectives* collectives = nullptr;
  std::function<void(int64_t tokens)> progress;
};

/// The largest forward that measure_perplexity makes on this process: a split, or max_tokens of it,
/// may be shorter than a window. Reads no more of the split than that.
struct ForwardSize {
  int64_t rows = 1, length = 1;
};
ForwardSize largest_forward(const DataConfig& data, const Corpus& corpus,
                            const Tokenizer& tokenizer, const PerplexityOptions& options);

/// Windows of N + 1 ids with stride N over all documents joined by EOS; every token but the very
/// first is scored once; the last window is as short as what is left. Nothing if `stop` asked for
/// an end. An error of one process ends it on all: there as it is, FailedElsewhere on the others.
std::optional<Perplexity> measure_perplexity(Transformer& model, const DataConfig& data,
                                             const Corpus& corpus, const Tokenizer& tokenizer,
                                             const PerplexityOptions& options);

}  // namespace polysketch
