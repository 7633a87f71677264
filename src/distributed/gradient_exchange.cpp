// SPDX-License-Identifier: Apache-2.0
#include "distributed/gradient_exchange.hpp"

#include "distributed/gradient_reducer.hpp"

namespace polysketch {

std::unique_ptr<GradientExchange> make_gradient_exchange(Parameters& parameters,
                                                         Collectives& collectives,
                                                         const DistributedConfig& config) {
  if (config.reduce == Reduce::canonical)
    return std::make_unique<CanonicalReduction>(parameters, collectives, config.shards);
  if (collectives.world() == 1) return std::make_unique<GradientExchange>();
  return std::make_unique<GradientReducer>(parameters, collectives, config.reduce_type,
                                           config.shard_optimizer);
}

}  // namespace polysketch
