// SPDX-License-Identifier: Apache-2.0
#include "training/evaluator.hpp"

#include "evaluation/perplexity.hpp"
#include "support/stop_signal.hpp"

namespace polysketch {
namespace {

class PerplexityEvaluator final : public Evaluator {
 public:
  PerplexityEvaluator(const Config& config, Transformer& model, const Corpus& corpus,
                      const Tokenizer& tokenizer, Collectives& collectives, int64_t rows)
      : config_(config),
        model_(model),
        corpus_(corpus),
        tokenizer_(tokenizer),
        collectives_(collectives),
        rows_(rows) {}

  std::string name() const override { return "perplexity"; }
  std::string event() const override { return "validation"; }
  int64_t every() const override { return config_.evaluation.every; }

  std::optional<Result> run() override {
    const PerplexityOptions options{.split = config_.evaluation.split,
                                    .context = config_.data.context,
                                    .max_tokens = config_.evaluation.tokens,
                                    .batch_tokens = rows_ * config_.data.context,
                                    .stop = [] { return StopSignal::requested(); },
                                    .collectives = &collectives_,
                                    .progress = {}};
    const auto measured = measure_perplexity(model_, config_.data, corpus_, tokenizer_, options);
    if (!measured) return std::nullopt;
    Result result;
    result.value = measured->nats_per_token();
    result.fields = {{"loss", result.value}, {"perplexity", measured->per_token()}};
    if (measured->complete) result.fields["bits_per_byte"] = measured->bits_per_byte();
    result.fields["tokens_scored"] = measured->counts.scored;
    result.fields["seconds"] = measured->seconds;
    return result;
  }

 private:
  const Config& config_;
  Transformer& model_;
  const Corpus& corpus_;
  const Tokenizer& tokenizer_;
  Collectives& collectives_;
  int64_t rows_;
};

}  // namespace

std::unique_ptr<Evaluator> make_perplexity_evaluator(const Config& config, Transformer& model,
                                                     const Corpus& corpus,
                                                     const Tokenizer& tokenizer,
                                                     Collectives& collectives, int64_t rows) {
  return std::make_unique<PerplexityEvaluator>(config, model, corpus, tokenizer, collectives, rows);
}

}  // namespace polysketch
