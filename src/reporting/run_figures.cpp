// SPDX-License-Identifier: Apache-2.0
#include "reporting/run_figures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "reporting/number_text.hpp"
#include "reporting/step_statistics.hpp"

namespace polysketch {
namespace {

std::string fixed(double value, int decimals) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, decimals) : "";
}

bool has_checkpoint(const RunHistory& run, int64_t step) {
  std::error_code error;
  return std::filesystem::exists(
      run.folder / "checkpoints" / fmt::format("step-{:08}", step) / "manifest.json", error);
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
  const double training = final_training_loss(run);
  const ValidationRow none{0, missing, missing, missing, missing, missing};
  const ValidationRow last = run.validations.empty() ? none : run.validations.back();
  ValidationRow best = last;
  for (const ValidationRow& row : run.validations) {
    if (!std::isfinite(best.loss) || row.loss < best.loss) best = row;
  }
  std::string best_text;
  if (std::isfinite(best.loss)) {
    best_text = fmt::format("{:.4f} at step {}", best.loss, group_digits(best.step));
    if (has_checkpoint(run, best.step)) best_text += " (checkpoint kept)";
  }
  const auto broken = std::count_if(run.steps.begin(), run.steps.end(),
                                    [](const StepRow& row) { return !std::isfinite(row.loss); });
  return {
      {"training loss at the end", fixed(training, 4)},
      {"training perplexity", std::isfinite(training) ? short_number(std::exp(training)) : ""},
      {"validation loss, last", fixed(last.loss, 4)},
      {"validation perplexity, last",
       std::isfinite(last.perplexity) ? short_number(last.perplexity) : ""},
      {"validation bits per byte, last", fixed(last.bits_per_byte, 4)},
      {"validation loss, best", best_text},
      {"steps without a finite loss", run.steps.empty() ? "" : group_digits(broken)},
  };
}

}  // namespace polysketch
