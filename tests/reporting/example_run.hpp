// SPDX-License-Identifier: Apache-2.0
// Run folders as training leaves them.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "helpers/test_helpers.hpp"
#include "reporting/metric_sink.hpp"
#include "reporting/run_history.hpp"

namespace polysketch::test {

/// Losses that fall from 10 to 3 (one is not a number), a validation each ten steps, an end.
inline void write_run(const std::filesystem::path& folder, int64_t steps, const std::string& name) {
  std::filesystem::create_directories(folder);
  const auto sink = make_jsonl_sink((folder / "metrics.jsonl").string(), 0);
  sink->record({"start", 0, 0, {}});
  for (int64_t step = 1; step <= steps; ++step) {
    const double loss = step == 7 ? std::nan("") : 3 + 7 / std::sqrt(static_cast<double>(step));
    sink->record({"step",
                  step,
                  step * 1000,
                  {{"loss", loss},
                   {"learning_rate", 7e-4},
                   {"gradient_norm", 1.0},
                   {"tokens_per_second", 500.0},
                   {"seconds_per_step", 2.0}}});
    if (step % 10 == 0)
      sink->record({"validation",
                    step,
                    step * 1000,
                    {{"loss", loss + 0.1}, {"perplexity", std::exp(loss + 0.1)}}});
  }
  sink->record({"end", steps, steps * 1000, {}});
  write_text(folder / "config.yaml",
             fmt::format("run:\n  name: {}\ntraining:\n  steps: {}\nschedule:\n  peak: 0.0007\n",
                         name, steps));
  write_text(folder / "run.json",
             R"({"machine": {"cpu": "a <fast> one"}, "build": {"polysketch": "0.1.0"}})");
}

/// Rows in the order in which they were written, as text: none is cut off.
inline void append_rows(const std::filesystem::path& run, const std::string& rows) {
  std::ofstream(run / "metrics.jsonl", std::ios::app | std::ios::binary) << rows;
}

}  // namespace polysketch::test
