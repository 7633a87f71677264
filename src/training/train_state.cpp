// SPDX-License-Identifier: Apache-2.0
#include "training/train_state.hpp"

#include <fmt/format.h>

#include <cmath>

#include "support/error.hpp"

namespace polysketch {
namespace {

// JSON has no NaN: a value that was none is null.
double number_or_nan(const nlohmann::json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

}  // namespace

std::string digest_text(uint64_t digest) { return fmt::format("{:016x}", digest); }

void EvaluationState::note(int64_t step, double value) {
  if (last_step < 0 || std::isnan(best_value) || value < best_value) {
    best_value = value;
    best_step = step;
  }
  last_step = step;
}

bool TrainState::is_due(const std::string& evaluator, int64_t every, int64_t last_step) const {
  const auto measured = evaluations.find(evaluator);
  if (measured != evaluations.end() && measured->second.last_step == step) return false;
  return every > 0 && step > 0 && (step % every == 0 || step == last_step);
}

void TrainState::advance(int64_t windows, int64_t window_tokens, uint64_t window_digest) {
  step += 1;
  sequences += windows;
  tokens += windows * window_tokens;
  digest += window_digest;
}

nlohmann::json TrainState::to_json() const {
  nlohmann::json measured = nlohmann::json::object();
  for (const auto& [name, state] : evaluations) {
    measured[name] = {{"last_step", state.last_step},
                      {"best_value", state.best_value},
                      {"best_step", state.best_step}};
  }
  return {{"step", step},
          {"sequences", sequences},
          {"tokens", tokens},
          {"order_version", order_version},
          {"token_digest", digest_text(digest)},
          {"evaluations", measured}};
}

TrainState TrainState::from_json(const nlohmann::json& json) {
  try {
    TrainState state;
    state.step = json.at("step").get<int64_t>();
    state.sequences = json.at("sequences").get<int64_t>();
    state.tokens = json.at("tokens").get<int64_t>();
    state.order_version = json.value("order_version", kOrderVersion1);
    state.digest = std::stoull(json.at("token_digest").get<std::string>(), nullptr, 16);
    if (json.contains("evaluations")) {
      for (const auto& [name, measured] : json.at("evaluations").items()) {
        state.evaluations[name] = {measured.at("last_step").get<int64_t>(),
                                   number_or_nan(measured.at("best_value")),
                                   measured.at("best_step").get<int64_t>()};
      }
    } else if (json.at("last_validation").get<int64_t>() >= 0) {
      // before there was more than one evaluator; where the best one was is not known
      state.evaluations["perplexity"] = {json.at("last_validation").get<int64_t>(),
                                         number_or_nan(json.at("best_loss")), -1};
    }
    return state;
  } catch (const std::exception& error) {
    throw UserError(
        ExitCode::no_checkpoint,
        fmt::format("the checkpoint's training state cannot be read: {}", error.what()));
  }
}

}  // namespace polysketch
