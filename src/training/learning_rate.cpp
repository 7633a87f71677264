// SPDX-License-Identifier: Apache-2.0
#include "training/learning_rate.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace polysketch {

double learning_rate(const ScheduleConfig& config, int64_t step, int64_t steps) {
  if (step < config.warmup)
    return config.peak * static_cast<double>(step + 1) / static_cast<double>(config.warmup + 1);
  const double f = config.final_fraction;
  const auto share = [&](double from) {  // of the way from update `from` to the end that is over
    const double length = static_cast<double>(steps) - from;
    return length <= 0 ? 1.0 : std::clamp((static_cast<double>(step) - from) / length, 0.0, 1.0);
  };
  const double x = share(static_cast<double>(config.warmup));
  switch (config.kind) {
    case ScheduleKind::linear:
      return config.peak * (1 - (1 - f) * x);
    case ScheduleKind::cosine:
      return config.peak * (f + (1 - f) * (1 + std::cos(std::numbers::pi * x)) / 2);
    case ScheduleKind::constant:
      return config.peak;
    case ScheduleKind::warmup_stable_decay: {
      const double start = std::max(static_cast<double>(config.warmup),
                                    static_cast<double>(steps) * (1 - config.decay_fraction));
      return static_cast<double>(step) < start ? config.peak
                                               : config.peak * (1 - (1 - f) * share(start));
    }
  }
  return config.peak;
}

}  // namespace polysketch
