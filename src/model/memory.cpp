// SPDX-License-Identifier: Apache-2.0
#include "model/memory.hpp"

#include <fmt/format.h>

#include "model/cost.hpp"
#include "support/error.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

void require_parameters_fit(const ModelCost& cost, int64_t bytes, const char* what,
                            int64_t available) {
  if (bytes <= available) return;
  throw UserError(ExitCode::config, fmt::format("model.size: {} of {} parameters need {} of "
                                                "memory, {} are available: take a smaller model",
                                                what, format_count(cost.parameters),
                                                format_bytes(bytes), format_bytes(available)));
}

[[noreturn]] void refuse(int64_t sequences, int64_t context, int64_t needed, int64_t available,
                         const std::string& remedies) {
  throw UserError(
      ExitCode::config,
      fmt::format(
          "data.context: {} x {} tokens at a time need {} of memory with the model's own, {} are "
          "available: {}",
          sequences, context, format_bytes(needed), format_bytes(available), remedies));
}

}  // namespace

void require_training_memory(const Config& config, int64_t sequences, int64_t available,
                             int64_t shards) {
  const int64_t context = config.data.context;
  const ModelCost cost = model_cost(config.model, config.attention, config.training.precision,
                                    context, sequences * context);
  const int64_t elsewhere = cost.optimizer_bytes / shards * (shards - 1);
  const int64_t needed = cost.training_bytes() - elsewhere;
  require_parameters_fit(cost, cost.model_bytes() - elsewhere, "weights, gradients and optimiser",
                         available);
  if (needed <= available) return;
  std::string remedies = fmt::format("lower data.context from {}", context);
  if (sequences > 1)
    remedies += fmt::format(", training.micro_batch_tokens from {}", sequences * context);
  if (!config.model.recompute) remedies += ", or set model.recompute: true";
  refuse(sequences, context, needed, available, remedies);
}

void require_evaluation_memory(const Config& config, int64_t context, int64_t sequences,
                               int64_t available) {
  const ModelCost cost = model_cost(config.model, config.attention, config.training.precision,
                                    context, sequences * context);
  require_parameters_fit(cost, cost.weight_bytes + cost.gradient_bytes, "weights", available);
  if (cost.evaluation_bytes() <= available) return;
  refuse(sequences, context, cost.evaluation_bytes(), available,
         fmt::format("lower the window, --context or data.context, from {}", context));
}

}  // namespace polysketch
