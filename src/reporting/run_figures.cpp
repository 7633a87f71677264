// SPDX-License-Identifier: Apache-2.0
#include "reporting/run_figures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "reporting/number_text.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

constexpr double missing = std::numeric_limits<double>::quiet_NaN();

std::string fixed(double value, int decimals) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, decimals) : "";
}
std::string percent(double share) {
  return std::isfinite(share) ? fmt::format("{:.1f} %", 100 * share) : "";
}

double median(const std::vector<StepRow>& steps, double StepRow::*figure) {
  std::vector<double> values;
  for (const StepRow& row : steps) {
    if (std::isfinite(row.*figure)) values.push_back(row.*figure);
  }
  if (values.empty()) return missing;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

double sum(const std::vector<StepRow>& steps, double StepRow::*figure) {
  double total = 0;
  for (const StepRow& row : steps) total += std::isfinite(row.*figure) ? row.*figure : 0;
  return total;
}

double highest(const std::vector<StepRow>& steps, double StepRow::*figure) {
  double most = missing;
  for (const StepRow& row : steps) most = std::fmax(most, row.*figure);
  return most;
}

std::string state_of(const RunHistory& run) {
  std::string text = run.last_event == "end"    ? "finished"
                     : run.last_event == "stop" ? "stopped, can be resumed"
                                                : "under way or broken off";
  if (run.starts > 1) text += fmt::format(", started {} times", run.starts);
  return text;
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

}  // namespace

double final_training_loss(const RunHistory& run) {
  const size_t want = std::clamp<size_t>(run.steps.size() / 100, 10, 200);
  double total = 0;
  size_t count = 0;
  for (size_t i = run.steps.size() - std::min(run.steps.size(), want); i < run.steps.size(); ++i) {
    if (!std::isfinite(run.steps[i].loss)) continue;
    total += run.steps[i].loss;
    ++count;
  }
  return count > 0 ? total / static_cast<double>(count) : missing;
}

std::vector<std::pair<std::string, std::string>> run_figures(const RunHistory& run) {
  const auto planned = run.config.find("training.steps");
  const int64_t step = std::max(run.steps.empty() ? 0 : run.steps.back().step,
                                run.validations.empty() ? 0 : run.validations.back().step);
  const double tokens =
      std::fmax(run.steps.empty() ? missing : run.steps.back().tokens,
                run.validations.empty() ? missing : run.validations.back().tokens);
  const double training = final_training_loss(run);
  const ValidationRow none{0, missing, missing, missing, missing};
  const ValidationRow last = run.validations.empty() ? none : run.validations.back();
  ValidationRow best = last;
  for (const ValidationRow& row : run.validations) {
    if (!std::isfinite(best.loss) || row.loss < best.loss) best = row;
  }
  const double seconds = sum(run.steps, &StepRow::seconds);
  const double speed = median(run.steps, &StepRow::tokens_per_second);
  const double peak = highest(run.steps, &StepRow::peak_bytes);
  const auto broken = std::count_if(run.steps.begin(), run.steps.end(),
                                    [](const StepRow& row) { return !std::isfinite(row.loss); });

  std::string steps = group_digits(step);
  if (planned != run.config.end()) {
    const auto total = parse_count(planned->second);
    steps += " of " + (total ? group_digits(*total) : planned->second);
  }
  return {
      {"state", state_of(run)},
      {"steps", steps},
      {"tokens", std::isfinite(tokens) ? short_tokens(std::llround(tokens)) : ""},
      {"training loss at the end", fixed(training, 4)},
      {"training perplexity", std::isfinite(training) ? short_number(std::exp(training)) : ""},
      {"validation loss, last", fixed(last.loss, 4)},
      {"validation perplexity, last",
       std::isfinite(last.perplexity) ? short_number(last.perplexity) : ""},
      {"validation bits per byte, last", fixed(last.bits_per_byte, 4)},
      {"validation loss, best",
       std::isfinite(best.loss)
           ? fmt::format("{:.4f} at step {}", best.loss, group_digits(best.step))
           : ""},
      {"time in steps", seconds > 0 ? format_duration(seconds) : ""},
      {"tokens per second, median", std::isfinite(speed) ? short_rate(speed) : ""},
      {"model FLOPs utilisation, median", percent(median(run.steps, &StepRow::mfu))},
      {"waiting for data", percent(waited_share(run.steps))},
      {"peak memory", std::isfinite(peak) ? format_bytes(std::llround(peak)) : ""},
      {"steps without a finite loss", run.steps.empty() ? "" : group_digits(broken)},
  };
}

}  // namespace polysketch
