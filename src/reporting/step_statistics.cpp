// SPDX-License-Identifier: Apache-2.0
#include "reporting/step_statistics.hpp"

#include <fmt/format.h>

#include <cmath>

#include "support/median.hpp"

namespace polysketch {

double median_of(const std::vector<StepRow>& steps, double StepRow::*figure) {
  std::vector<double> values;
  for (const StepRow& row : steps) {
    if (std::isfinite(row.*figure)) values.push_back(row.*figure);
  }
  return values.empty() ? missing : median(std::move(values));
}

double sum_of(const std::vector<StepRow>& steps, double StepRow::*figure) {
  double total = 0;
  for (const StepRow& row : steps) total += std::isfinite(row.*figure) ? row.*figure : 0;
  return total;
}

double highest_of(const std::vector<StepRow>& steps, double StepRow::*figure) {
  double most = missing;
  for (const StepRow& row : steps) most = std::fmax(most, row.*figure);
  return most;
}

double waited_share(const std::vector<StepRow>& steps) {
  double waited = 0, seconds = 0;
  for (const StepRow& row : steps) {
    if (!std::isfinite(row.seconds) || !std::isfinite(row.data_wait)) continue;
    waited += row.data_wait * row.seconds;
    seconds += row.seconds;
  }
  return seconds > 0 ? waited / seconds : missing;
}

std::string percent(double share) {
  return std::isfinite(share) ? fmt::format("{:.1f} %", 100 * share) : "";
}

}  // namespace polysketch
