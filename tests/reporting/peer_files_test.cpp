// SPDX-License-Identifier: Apache-2.0
// Writes event files for scripts/check_formats to read with TensorBoard itself.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <tuple>

#include "reporting/metric_sink.hpp"

namespace polysketch {
namespace {

TEST(PeerFiles, WritesEventsForTensorboard) {
  const char* folder = std::getenv("POLYSKETCH_PEER_FILES");
  if (folder == nullptr)
    GTEST_SKIP() << "POLYSKETCH_PEER_FILES names no folder; scripts/check_formats does";
  const std::string run = std::string(folder) + "/run";
  // A run that died after step 50 and was resumed from step 30: the same records go to the rows and
  // to the events.
  for (const auto& [from, to, offset] : {std::tuple{0, 50, 0.0}, std::tuple{30, 60, 0.25}}) {
    const auto rows = make_jsonl_sink(run + "/metrics.jsonl", from);
    const auto events = make_tensorboard_sink(run + "/tensorboard");
    const auto put = [&](const MetricRecord& record) {
      rows->record(record);
      events->record(record);
    };
    put({"start", from, from * 100, {}});
    for (int step = from + 1; step <= to; ++step) {
      put({"step",
           step,
           step * 100,
           {{"loss", 10 / std::sqrt(step) + offset},
            {"learning_rate", 7e-4 * step / 60},
            {"peak_bytes", int64_t{5'000'000'000}},
            {"token_digest", "ab"}}});
      if (step % 10 == 0) put({"validation", step, step * 100, {{"loss", 9.5 + offset}}});
    }
  }
}

}  // namespace
}  // namespace polysketch
