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

// Windows of a batch as tensors: inputs, targets with everything that is not to be scored masked,
// and documents.
ModelInput make_input(const std::vector<EvaluationWindow>& windows, int64_t context,
                      bool mask_documents, const at::Device& device) {
  const auto rows = static_cast<int64_t>(windows.size());
  at::Tensor ids = at::zeros({rows, context}, at::kLong),
             targets = at::full({rows, context}, -1, at::kLong);
  at::Tensor documents = mask_documents ? at::zeros({rows, context}, at::kInt) : at::Tensor();
  for (int64_t row = 0; row < rows; ++row) {
    const EvaluationWindow& window = windows[static_cast<size_t>(row)];
    const auto length = static_cast<int64_t>(window.ids.size()) - 1;
    auto* id = ids.data_ptr<int64_t>() + row * context;
    auto* target = targets.data_ptr<int64_t>() + row * context;
    for (int64_t t = 0; t < length; ++t) {
      id[t] = window.ids[static_cast<size_t>(t)];
      if (t + 1 >= window.first_target) target[t] = window.ids[static_cast<size_t>(t + 1)];
    }
    if (!mask_documents) continue;
    auto* document = documents.data_ptr<int32_t>() + row * context;
    for (int64_t t = 0; t < context; ++t)
      document[t] = window.documents[static_cast<size_t>(std::min(t, length))];
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

std::optional<Perplexity> measure_perplexity(Transformer& model, const DataConfig& data,
                                             const Corpus& corpus, const Tokenizer& tokenizer,
                                             const PerplexityOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Collectives* all = options.collectives != nullptr && options.collectives->world() > 1
                         ? options.collectives
                         : nullptr;
  EvaluationStream::Options order;
  order.context = options.context;
  order.stride = options.stride;
  order.max_tokens = options.max_tokens;
  order.rank = all ? all->rank() : 0;
  order.world = all ? all->world() : 1;
  std::optional<EvaluationStream> stream;
  std::exception_ptr error;
  try {
    stream.emplace(data, corpus, options.split, tokenizer, order);
  } catch (const std::exception&) {
    if (!all) throw;
    error = std::current_exception();
  }
  const auto rows = static_cast<size_t>(options.rows());
  Perplexity result;
  std::vector<EvaluationWindow> windows;
  for (bool more = true; more;) {
    bool stop = options.stop && options.stop();
    try {
      while (!error && !stop && windows.size() < rows) {
        EvaluationWindow window;
        if (!stream->next(window)) break;
        windows.push_back(std::move(window));
      }
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
      const ModelInput input =
          make_input(windows, options.context, data.mask_documents, model.options().device);
      result.nats += model.losses(input).to(at::kDouble).sum().item<double>();
    } catch (const std::exception&) {
      if (!all) throw;
      error = std::current_exception();
    }
    windows.clear();
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
