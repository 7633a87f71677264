// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "reporting/run_history.hpp"

namespace polysketch {

/// What a row lacks.
inline constexpr double missing = std::numeric_limits<double>::quiet_NaN();

// Over the steps that have the figure; `missing` (a sum: 0) if none does.
double median_of(const std::vector<StepRow>& steps, double StepRow::*figure);
double sum_of(const std::vector<StepRow>& steps, double StepRow::*figure);
double highest_of(const std::vector<StepRow>& steps, double StepRow::*figure);
double waited_share(const std::vector<StepRow>& steps);  ///< of the time of all steps

/// "12.3 %"; empty if it is missing.
std::string percent(double share);

}  // namespace polysketch
