// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.hpp"
#include "model/transformer.hpp"
#include "reporting/sample_file.hpp"

namespace polysketch {

struct SampleOptions {
  std::string prompt{};  ///< empty: the start of a document
  int64_t count = 1;     ///< texts, with the seeds 1 to count
  int64_t tokens = 128;  ///< most tokens of a text
  double temperature = 0.8;
  double top_p = 0.95;
  int64_t context = 1024;        ///< length of training
  std::function<bool()> stop{};  ///< polled at each token
};

/// Texts that show a reader what a model has learned. They depend on the model and the options
/// alone, and leave the model and every random state as they were. Fewer than asked for if `stop`
/// said so. Throws UserError 65 if the prompt is not UTF-8.
std::vector<Sample> draw_samples(Transformer& model, const Tokenizer& tokenizer,
                                 const SampleOptions& options);

}  // namespace polysketch
