// SPDX-License-Identifier: Apache-2.0
#include "training/learning_rate.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace polysketch {

namespace {

// The first update of the decay of warmup_stable_decay, not rounded.
double decay_start(const ScheduleConfig& config, int64_t steps) {
  return std::max(static_cast<double>(config.warmup),
                  static_cast<double>(steps) * (1 - config.decay_fraction));
}

}  // namespace

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
      const double start = decay_start(config, steps);
      return static_cast<double>(step) < start ? config.peak
                                               : config.peak * (1 - (1 - f) * share(start));
    }
  }
  return config.peak;
}

bool steps_may_change(const ScheduleConfig& config, int64_t done, int64_t before, int64_t now) {
  if (now < done) return false;
  if (now == before || config.kind == ScheduleKind::constant) return true;
  // the last update that does not know how long the run is
  double free = static_cast<double>(config.warmup);
  if (config.kind == ScheduleKind::warmup_stable_decay)
    free = std::min(decay_start(config, before), decay_start(config, now));
  return static_cast<double>(done - 1) <= free;
}

}  // namespace polysketch
