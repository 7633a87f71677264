// SPDX-License-Identifier: Apache-2.0
#include "evaluation/samples.hpp"

#include <fmt/format.h>

#include "evaluation/generator.hpp"
#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {

std::vector<Sample> draw_samples(Transformer& model, const Tokenizer& tokenizer,
                                 const SampleOptions& options) {
  if (const auto at = invalid_utf8_at(options.prompt)) {
    throw UserError(
        ExitCode::bad_data,
        fmt::format("--prompt: is not UTF-8 from byte {} on: give the text as UTF-8", *at));
  }
  const auto wanted = [&] { return !options.stop || !options.stop(); };
  // as at the beginning of a document in training
  std::vector<int32_t> start{tokenizer.eos()};
  tokenizer.encode(options.prompt, start);
  SamplingOptions sampling;
  sampling.tokens = options.tokens;
  sampling.temperature = options.temperature;
  sampling.top_p = options.top_p;
  sampling.context = options.context;
  sampling.stop = tokenizer.eos();
  std::vector<Sample> samples;
  for (int64_t i = 0; i < options.count && wanted(); ++i) {
    sampling.seed = static_cast<uint64_t>(i + 1);
    const auto added =
        generate(model, tokenizer.vocabulary(), start, sampling, [&](int32_t) { return wanted(); });
    if (!wanted()) break;
    std::vector<int32_t> whole(start.begin() + 1, start.end());
    whole.insert(whole.end(), added.begin(), added.end());
    samples.push_back({options.prompt, sampling.seed, tokenizer.decode(whole)});
  }
  return samples;
}

}  // namespace polysketch
