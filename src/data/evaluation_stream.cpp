// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <limits>

#include "data/batch_stream.hpp"
#include "data/sample_order.hpp"
#include "data/segment_loader.hpp"
#include "data/token_cache.hpp"
#include "support/error.hpp"

namespace polysketch {

struct EvaluationStream::State {
  /// A document of the split, tokens [begin, …) of it.
  struct Span {
    int64_t begin = 0, tokens = 0, bytes = 0, words = 0, unknown = 0;
  };

  const Options options;
  const int32_t eos, unknown;
  const bool number;  // documents wanted
  SegmentLoader loader;
  const std::vector<uint64_t> file_bytes;
  SegmentWalk walk;
  bool ended = false;

  std::vector<int32_t> tokens;  // of the split from `begin` on
  int64_t begin = 0;
  std::deque<Span> documents;  // read but not counted yet
  SplitCounts counts;
  int64_t window = 0;  // number of the next one

  static OrderRules in_order() {
    OrderRules rules;
    rules.shuffle.enabled = false;
    return rules;
  }

  State(const DataConfig& config, std::shared_ptr<SegmentSource> source, const Options& given)
      : options(given),
        eos(source->eos()),
        unknown(source->unknown()),
        number(config.mask_documents),
        loader(source, tokeniser_threads(config.threads), false),
        file_bytes(sizes_of_files(*source)),
        walk(in_order(), 0, file_bytes) {}

  int64_t end() const { return begin + static_cast<int64_t>(tokens.size()); }
  int64_t stride() const { return options.stride > 0 ? options.stride : options.context; }

  /// Reads segments until the split's tokens reach `to` or end.
  void fill(int64_t to) {
    while (!ended && end() < to) {
      const auto ref = walk.peek();
      if (!ref) {
        ended = true;
        break;
      }
      auto ahead = walk;
      for (int64_t i = 0; i < 2 * loader.threads() && ahead.peek();) {
        if (loader.ended(*ahead.peek())) {
          ahead.drop();
          continue;
        }
        loader.want(*ahead.peek());
        // Small files hold one segment: looking at the next file too keeps all threads busy.
        if (++i % 2 == 0)
          ahead.drop();
        else
          ahead.take(false);
      }
      if (const auto segment = loader.get(*ref)) {
        append(*segment);
        walk.take(segment->summary().last);
      } else {
        walk.drop();
      }
    }
  }

  void append(const Segment& segment) {
    const auto old = tokens.size();
    const int64_t first = end();
    tokens.resize(old + static_cast<size_t>(segment.counts().tokens));
    segment.copy(0, segment.counts().tokens, tokens.data() + old);
    int64_t from = 0;
    for (const auto& document : segment.documents()) {
      const auto to = static_cast<int64_t>(document.end);
      Span span{first + from, to - from, document.bytes, document.words, 0};
      const auto* ids = tokens.data() + old;
      span.unknown = std::count(ids + from, ids + to, unknown);
      documents.push_back(span);
      from = to;
    }
  }

  /// Counts the documents that begin before a token.
  void count_before(int64_t token) {
    for (; !documents.empty() && documents.front().begin < token; documents.pop_front()) {
      const Span& span = documents.front();
      counts.documents += 1;
      counts.tokens += span.tokens;
      counts.bytes += span.bytes;
      counts.words += span.words;
      counts.unknown += span.unknown;
    }
  }

  /// The next window of any rank: its tokens [first, last) and the first one scored; false at the
  /// end.
  bool step(int64_t& first, int64_t& first_target, int64_t& last) {
    first = window * stride();
    first_target = window == 0 ? 1 : first - stride() + options.context + 1;
    fill(first + options.context + 1);
    last = std::min(first + options.context + 1, end());
    if (options.max_tokens > 0)
      last = std::min(last, first_target + options.max_tokens - counts.scored);
    if (last <= first_target) return false;
    counts.scored += last - first_target;
    count_before(last);
    ++window;
    return true;
  }

  /// Forgets tokens that no window needs any more, in big steps.
  void trim() {
    const int64_t spare = std::min(window * stride() - begin, static_cast<int64_t>(tokens.size()));
    if (spare < (1 << 20)) return;
    tokens.erase(tokens.begin(), tokens.begin() + spare);
    begin += spare;
  }
};

EvaluationStream::EvaluationStream(const DataConfig& config, const Corpus& corpus, Split split,
                                   const Tokenizer& tokenizer, const Options& options)
    : EvaluationStream(config, TokenCache::open(config, corpus, split, tokenizer), options) {}

EvaluationStream::EvaluationStream(const DataConfig& config, std::shared_ptr<SegmentSource> source,
                                   const Options& options) {
  require(options.context >= 1 && options.world >= 1 && options.rank >= 0 &&
              options.rank < options.world,
          "evaluation options out of range");
  if (options.stride < 0 || options.stride > options.context) {
    throw UserError(ExitCode::usage,
                    fmt::format("stride of evaluation windows: got {}, want 1 to the context, {}",
                                options.stride, options.context));
  }
  state_ = std::make_unique<State>(config, std::move(source), options);
}

EvaluationStream::~EvaluationStream() = default;

bool EvaluationStream::next(EvaluationWindow& window) {
  State& state = *state_;
  int64_t first = 0, first_target = 0, last = 0;
  for (;;) {
    const bool mine = state.window % state.options.world == state.options.rank;
    if (!state.step(first, first_target, last)) break;
    if (!mine) {
      state.trim();
      continue;
    }
    const auto from = state.tokens.begin() + (first - state.begin);
    window.ids.assign(from, from + (last - first));
    window.first_target = first_target - first;
    window.documents.resize(state.number ? window.ids.size() : 0);
    if (state.number)
      number_documents(window.ids.data(), last - first, state.eos, window.documents.data());
    state.trim();
    return true;
  }
  if (state.window == 0) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("the split holds {} tokens in {} files: nothing to evaluate",
                                state.end(), state.loader.source().files()));
  }
  return false;
}

const SplitCounts& EvaluationStream::counts() const { return state_->counts; }

}  // namespace polysketch
