// SPDX-License-Identifier: Apache-2.0
#include "evaluation/perplexity.hpp"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <exception>
#include <numbers>

#include "support/error.hpp"

namespace polysketch {
namespace {

/// Windows of one length, at most `rows` at a time. Only the last of a split is shorter than the
/// others, and goes alone: filled up to their length it would cost as much as they do.
class WindowBatches {
 public:
  WindowBatches(EvaluationStream& stream, int64_t rows)
      : stream_(stream), rows_(static_cast<size_t>(rows)) {}

  /// Nothing at the end.
  std::vector<EvaluationWindow> next() {
    std::vector<EvaluationWindow> windows;
    while (windows.size() < rows_) {
      EvaluationWindow window;
      if (held_) {
        window = std::move(*held_);
        held_.reset();
      } else if (!stream_.next(window)) {
        break;
      }
      if (!windows.empty() && window.ids.size() != windows.front().ids.size()) {
        held_ = std::move(window);
        break;
      }
      windows.push_back(std::move(window));
    }
    return windows;
  }

 private:
  EvaluationStream& stream_;
  size_t rows_;
  std::optional<EvaluationWindow> held_;
};

EvaluationStream::Options stream_options(const PerplexityOptions& options) {
  EvaluationStream::Options order;
  order.context = options.context;
  order.stride = options.stride;
  order.max_tokens = options.max_tokens;
  order.rank = options.collectives == nullptr ? 0 : options.collectives->rank();
  order.world = options.collectives == nullptr ? 1 : options.collectives->world();
  return order;
}

// Windows of a batch as tensors: inputs, targets with everything that is not to be scored masked,
// and documents.
ModelInput make_input(const std::vector<EvaluationWindow>& windows, bool mask_documents,
                      const at::Device& device) {
  const auto rows = static_cast<int64_t>(windows.size()),
             length = static_cast<int64_t>(windows.front().ids.size()) - 1;
  at::Tensor ids = at::empty({rows, length}, at::kLong),
             targets = at::full({rows, length}, -1, at::kLong);
  at::Tensor documents = mask_documents ? at::empty({rows, length}, at::kInt) : at::Tensor();
  for (int64_t row = 0; row < rows; ++row) {
    const EvaluationWindow& window = windows[static_cast<size_t>(row)];
    auto* id = ids.data_ptr<int64_t>() + row * length;
    auto* target = targets.data_ptr<int64_t>() + row * length;
    for (int64_t t = 0; t < length; ++t) {
      id[t] = window.ids[static_cast<size_t>(t)];
      if (t + 1 >= window.first_target) target[t] = window.ids[static_cast<size_t>(t + 1)];
    }
    if (mask_documents) {
      std::copy_n(window.documents.begin(), length, documents.data_ptr<int32_t>() + row * length);
    }
  }
  return {.ids = ids.to(device),
          .targets = targets.to(device),
          .documents = mask_documents ? Documents(documents) : Documents(),
          .dropout = {}};
}

}  // namespace

double Perplexity::per_token() const { return std::exp(nats_per_token()); }
double Perplexity::bits_per_byte() const {
  return nats / (static_cast<double>(counts.bytes) * std::numbers::ln2);
}
double Perplexity::per_word() const { return std::exp(nats / static_cast<double>(words)); }

ForwardSize largest_forward(const DataConfig& data, const Corpus& corpus,
                            const Tokenizer& tokenizer, const PerplexityOptions& options) {
  EvaluationStream stream(data, corpus, options.split, tokenizer, stream_options(options));
  const auto windows = WindowBatches(stream, options.rows()).next();
  if (windows.empty()) return {};  // other processes have all of them
  return {static_cast<int64_t>(windows.size()),
          static_cast<int64_t>(windows.front().ids.size()) - 1};
}

std::optional<Perplexity> measure_perplexity(Transformer& model, const DataConfig& data,
                                             const Corpus& corpus, const Tokenizer& tokenizer,
                                             const PerplexityOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Collectives* all = options.collectives != nullptr && options.collectives->world() > 1
                         ? options.collectives
                         : nullptr;
  std::optional<EvaluationStream> stream;
  std::optional<WindowBatches> batches;
  std::exception_ptr error;
  try {
    stream.emplace(data, corpus, options.split, tokenizer, stream_options(options));
    batches.emplace(*stream, options.rows());
  } catch (const std::exception&) {
    if (!all) throw;
    error = std::current_exception();
  }
  Perplexity result;
  for (bool more = true; more;) {
    bool stop = options.stop && options.stop();
    std::vector<EvaluationWindow> windows;
    try {
      if (!error && !stop) windows = batches->next();
    } catch (const std::exception&) {
      if (!all) throw;
      error = std::current_exception();
    }
    more = !windows.empty();
    // Processes may have different numbers of windows; all go on until the last has none, or until
    // one has met an error.
    if (all) {
      std::vector<double> said{stop ? 1.0 : 0.0, more ? 1.0 : 0.0, error ? 1.0 : 0.0};
      all->all_reduce(said, ReduceOperation::max, "validation goes on");
      if (error) std::rethrow_exception(error);
      if (said[2] > 0) throw FailedElsewhere();
      stop = said[0] > 0;
      more = said[1] > 0;
    }
    if (stop) return std::nullopt;
    if (windows.empty()) continue;
    try {
      const ModelInput input = make_input(windows, data.mask_documents, model.options().device);
      result.nats += model.losses(input).to(at::kDouble).sum().item<double>();
    } catch (const std::exception&) {
      if (!all) throw;
      error = std::current_exception();
    }
    if (options.progress) options.progress(stream->counts().scored);
  }
  if (all) {
    std::vector<double> nats{result.nats};
    all->all_reduce(nats, ReduceOperation::sum, "nats");
    result.nats = nats[0];
  }
  result.counts = stream->counts();
  if (result.counts.scored == 0) {
    throw UserError(ExitCode::bad_data,
                    "the split holds fewer than two tokens: there is nothing to score");
  }
  result.complete = options.max_tokens == 0 || result.counts.scored + 1 >= result.counts.tokens;
  const int64_t published = corpus.published_words(options.split);
  const bool full =
      published > 0 && std::abs(static_cast<double>(result.counts.words - published)) <
                           0.02 * static_cast<double>(published);
  result.words = full ? published : result.counts.words;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace polysketch
