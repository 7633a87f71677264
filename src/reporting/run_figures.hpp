// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "reporting/run_history.hpp"

namespace polysketch {

/// The losses that a run came to, as (name, text) pairs, always the same names in the same order;
/// an empty text where the run does not tell.
std::vector<std::pair<std::string, std::string>> run_figures(const RunHistory& run);

/// The average over the last steps of a run that a reader means by "final training loss": of the
/// last 1 %, at least 10 and at most 200 steps.
double final_training_loss(const RunHistory& run);

}  // namespace polysketch
