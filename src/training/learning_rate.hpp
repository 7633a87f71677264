// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "config/config.hpp"

namespace polysketch {

/// The learning rate of optimiser update `step` (0 is the first) of a run of `steps`: a pure
/// function, so nothing of it is saved. Warm-up: peak · (step + 1) / (warmup + 1) while step <
/// warmup, so the first update is not wasted and the peak is reached at step = warmup. Then, with x
/// the share of the remaining steps that is over and f = final_fraction:
///   linear: peak · (1 − (1 − f)·x); cosine: peak · (f + (1 − f)·(1 + cos πx)/2); constant: peak;
///   warmup_stable_decay: peak until the last decay_fraction of all steps, then linear to f · peak.
double learning_rate(const ScheduleConfig& config, int64_t step, int64_t steps);

/// Whether a run of `before` steps that has made `done` updates may go on as one of `now` steps and
/// be what that would have been from its beginning: every update made so far had the rate that it
/// would have had there. So with `constant` always, with `warmup_stable_decay` until a decay
/// begins, with the others during the warm-up; never if `now` is less than `done`.
bool steps_may_change(const ScheduleConfig& config, int64_t done, int64_t before, int64_t now);

}  // namespace polysketch
