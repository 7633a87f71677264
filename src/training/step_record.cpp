// SPDX-License-Identifier: Apache-2.0
#include "training/step_record.hpp"

#include <algorithm>
#include <cmath>

#include "training/train_state.hpp"

namespace polysketch {

nlohmann::ordered_json step_fields(const StepResult& step, const StepFigures& figures) {
  const double speed = static_cast<double>(figures.batch_tokens) / figures.seconds;
  nlohmann::ordered_json fields{
      {"loss", step.loss},
      {"perplexity", std::exp(step.loss)},
      {"learning_rate", figures.learning_rate},
      {"gradient_norm", step.gradient_norm},
      {"tokens_per_second", speed},
      {"seconds_per_step", figures.seconds},
      {"data_wait_fraction",
       *std::max_element(step.waiting.begin(), step.waiting.end()) / figures.seconds}};
  if (figures.peak_flops > 0) {
    fields["mfu"] = figures.cost.flops_per_token * speed / figures.peak_flops;
    fields["mfu_causal"] = figures.cost.flops_per_token_causal * speed / figures.peak_flops;
  }
  if (figures.processes > 1) {
    fields["exchange_fraction"] = step.exchanging / figures.seconds;
    if (figures.exchange.communication > 0) {
      fields["communication_seconds"] = figures.exchange.communication;
      fields["communication_hidden"] = figures.exchange.hidden_share();
    }
    fields["slowest_rank"] =
        std::max_element(step.computing.begin(), step.computing.end()) - step.computing.begin();
    fields["computing_seconds"] = step.computing;
  }
  fields["peak_bytes"] = figures.peak_bytes;
  fields["token_digest"] = digest_text(figures.digest);
  fields["epoch"] = figures.epoch;
  return fields;
}

}  // namespace polysketch
