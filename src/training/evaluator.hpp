// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "config/config.hpp"
#include "data/corpus.hpp"
#include "data/tokenizer.hpp"
#include "distributed/collectives.hpp"
#include "model/transformer.hpp"

namespace polysketch {

/// Something that is measured while a run trains: after every so many steps, and after the last.
class Evaluator {
 public:
  struct Result {
    double value = 0;  ///< of which the lowest is the best
    nlohmann::ordered_json fields;
  };

  virtual ~Evaluator() = default;
  virtual std::string name() const = 0;   ///< in the training state: "perplexity"
  virtual std::string event() const = 0;  ///< in metrics.jsonl: "validation"
  virtual int64_t every() const = 0;      ///< steps; 0: never
  /// Measures the model as it is. Nothing if a stop was asked for meanwhile. Of several processes
  /// all call it together and get the same; an error of one ends it on all, with FailedElsewhere on
  /// the others.
  virtual std::optional<Result> run() = 0;
};

/// Loss and perplexity of `evaluation.split`. Everything is kept by reference; rows: windows of one
/// forward.
std::unique_ptr<Evaluator> make_perplexity_evaluator(const Config& config, Transformer& model,
                                                     const Corpus& corpus,
                                                     const Tokenizer& tokenizer,
                                                     Collectives& collectives, int64_t rows);

}  // namespace polysketch
