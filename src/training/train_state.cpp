// SPDX-License-Identifier: Apache-2.0
#include "training/train_state.hpp"

#include <fmt/format.h>

#include <limits>

#include "support/error.hpp"

namespace polysketch {

std::string digest_text(uint64_t digest) { return fmt::format("{:016x}", digest); }

nlohmann::json TrainState::to_json() const {
  return {{"step", step},
          {"sequences", sequences},
          {"tokens", tokens},
          {"order_version", order_version},
          {"token_digest", digest_text(digest)},
          {"last_validation", last_validation},
          {"best_loss", best_loss}};
}

TrainState TrainState::from_json(const nlohmann::json& json) {
  try {
    TrainState state;
    state.step = json.at("step").get<int64_t>();
    state.sequences = json.at("sequences").get<int64_t>();
    state.tokens = json.at("tokens").get<int64_t>();
    state.order_version = json.value("order_version", kOrderVersion1);
    state.digest = std::stoull(json.at("token_digest").get<std::string>(), nullptr, 16);
    state.last_validation = json.at("last_validation").get<int64_t>();
    // JSON has no NaN: a loss that was none is null
    const nlohmann::json& best = json.at("best_loss");
    state.best_loss =
        best.is_null() ? std::numeric_limits<double>::quiet_NaN() : best.get<double>();
    return state;
  } catch (const std::exception& error) {
    throw UserError(
        ExitCode::no_checkpoint,
        fmt::format("the checkpoint's training state cannot be read: {}", error.what()));
  }
}

}  // namespace polysketch
