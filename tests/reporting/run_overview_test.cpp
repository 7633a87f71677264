// SPDX-License-Identifier: Apache-2.0
#include "reporting/run_overview.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "helpers/test_helpers.hpp"
#include "reporting/example_run.hpp"
#include "reporting/html_report.hpp"
#include "reporting/run_figures.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::append_rows;
using test::TemporaryFolder;
using test::write_run;
using test::write_text;
using testing::HasSubstr;

using Texts = std::map<std::string, std::string>;

Texts overview_of(const RunHistory& run) {
  Texts texts;
  for (const auto& [name, text] : run_overview(run)) texts[name] = text;
  return texts;
}

std::string row(const std::string& event, int64_t step, const std::string& more = "") {
  return fmt::format("{{\"event\":\"{}\",\"step\":{},\"tokens\":{}{}}}\n", event, step, 1000 * step,
                     more);
}

TEST(RunOverview, SaysWhatTheRunIs) {
  const TemporaryFolder folder;
  const fs::path run = folder / "run";
  write_run(run, 40, "first");
  write_text(run / "config.yaml",
             "model:\n  size: small\n  layers: 12\n  width: 768\n  heads: 12\nattention:\n  kind: "
             "polysketch\n  degree: 4\n  sketch: learned\n  sketch_size: 32\n  local: exact\n  "
             "block: 1024\ndata:\n  corpus: pg19\n  context: 8192\ntraining:\n  batch_tokens: "
             "1048576\n  steps: 125000\n  precision: bf16\n  device: auto\n");
  append_rows(
      run,
      row("start", 40, R"(,"parameters":124000000,"flops_per_token":9.87e8,"device":"a GPU")") +
          row("step", 41, R"(,"loss":3,"seconds_per_step":2,"tokens_per_second":900)") +
          row("validation", 41, R"(,"loss":3,"seconds":60)") +
          row("checkpoint", 41, R"(,"seconds":8)"));
  const Texts texts = overview_of(read_run(run));
  EXPECT_EQ(texts.at("state"), "running or interrupted (started 2 times)");
  EXPECT_EQ(texts.at("steps"), "41 of 125,000");
  EXPECT_EQ(texts.at("tokens"), "41.0k");
  EXPECT_EQ(texts.at("time"), "2:30 (steps 1:22, validation 1:00, checkpoints 0:08)");
  EXPECT_EQ(texts.at("tokens per second, median"), "500");
  EXPECT_EQ(texts.at("parameters"), "124M");
  EXPECT_EQ(texts.at("FLOPs per token"), "987M");
  EXPECT_EQ(texts.at("model"), "12 layers x 768 wide, 12 heads of 64");
  EXPECT_EQ(texts.at("attention"),
            "polysketch, learned sketch of 32, exact blocks of 1,024, degree 4");
  EXPECT_EQ(texts.at("context"), "8,192 tokens");
  EXPECT_EQ(texts.at("batch"), "1,048,576 tokens (128 sequences)");
  EXPECT_EQ(texts.at("corpus"), "pg19");
  EXPECT_EQ(texts.at("device"), "a GPU");
  EXPECT_EQ(texts.at("precision"), "bf16");
  const std::string html = html_report({read_run(run)});
  EXPECT_LT(html.find(">parameters<"), html.find(">validation loss, last<"))
      << "the first table of the page";
}

TEST(RunOverview, LeavesEmptyWhatTheRunDoesNotTell) {
  const TemporaryFolder folder;
  write_text(folder / "metrics.jsonl", row("step", 1, R"(,"loss":2)"));
  for (const auto& [name, text] : run_overview(read_run(folder.path()))) {
    if (name == "state" || name == "steps" || name == "tokens") continue;
    EXPECT_EQ(text, "") << name;
  }
}

TEST(RunOverview, SaysHowEachKindOfAttentionIsSet) {
  const Texts base{{"model.width", "768"},          {"model.heads", "12"},
                   {"attention.degree", "8"},       {"attention.sketch", "random"},
                   {"attention.sketch_size", "64"}, {"attention.local", "none"},
                   {"attention.block", "2048"},     {"attention.features", "0"},
                   {"attention.window", "4096"},    {"attention.redraw", "0"}};
  const auto words = [&](const std::string& kind, const Texts& more = {}) {
    Texts config = base;
    config["attention.kind"] = kind;
    for (const auto& [key, value] : more) config[key] = value;
    return attention_in_words(config);
  };
  EXPECT_EQ(words("softmax"), "softmax");
  EXPECT_EQ(words("polynomial"), "polynomial, degree 8");
  EXPECT_EQ(words("polysketch"), "polysketch, random sketch of 64, no exact blocks, degree 8");
  EXPECT_EQ(words("polysketch", {{"attention.local", "exact"}}),
            "polysketch, random sketch of 64, exact blocks of 2,048, degree 8");
  EXPECT_EQ(words("performer"), "performer, 2,048 random features");
  EXPECT_EQ(words("performer", {{"attention.features", "256"}, {"attention.redraw", "1000"}}),
            "performer, 256 random features, drawn anew every 1,000 steps");
  EXPECT_EQ(words("hedgehog"), "hedgehog, 128 learned features");
  EXPECT_EQ(words("sliding_window"), "softmax in a sliding window of 4,096");
  EXPECT_EQ(words("local_polynomial"), "local polynomial, blocks of 2,048, degree 8");
  EXPECT_EQ(words("of a later version"), "of a later version");
  EXPECT_EQ(attention_in_words({}), "");
}

/// The last word of a run, and what may stand behind it.
TEST(RunOverview, SaysHowTheRunStands) {
  const std::string begun = row("start", 0) + row("step", 1, R"(,"loss":2)");
  const auto state = [&](const std::string& rows) {
    const TemporaryFolder folder;
    write_text(folder / "metrics.jsonl", begun + rows);
    return overview_of(read_run(folder.path())).at("state");
  };
  const std::string step = row("step", 2, R"(,"loss":2)"), checkpoint = row("checkpoint", 1);
  const std::string error = row("error", 1, R"(,"message":"no <space>")");
  EXPECT_EQ(state(""), "running or interrupted");
  EXPECT_EQ(state(checkpoint), "running or interrupted");
  EXPECT_EQ(state(row("end", 1)), "finished");
  EXPECT_EQ(state(row("stop", 1)), "stopped, can be resumed");
  EXPECT_EQ(state(row("stop", 1) + row("start", 1)), "running or interrupted (started 2 times)");
  EXPECT_EQ(state(error), "ended by an error: no <space>");
  EXPECT_EQ(state(error + checkpoint), "ended by an error: no <space>");
  EXPECT_EQ(state(error + row("start", 1)), "running or interrupted (started 2 times)");
  EXPECT_EQ(state(error + row("start", 1) + step + row("end", 2)), "finished (started 2 times)");
  EXPECT_EQ(state(row("error", 1)), "ended by an error");
  // older versions wrote a start and nothing else when a finished run was started again
  EXPECT_EQ(state(row("end", 1) + row("start", 1)), "finished");
  EXPECT_EQ(state(row("end", 1) + row("start", 1) + row("start", 1)), "finished");
  EXPECT_EQ(state(row("end", 1) + row("start", 1) + step),
            "running or interrupted (started 2 times)");
  EXPECT_EQ(state(row("end", 1) + row("start", 1) + error),
            "ended by an error: no <space> (started 2 times)");
}

TEST(RunFigures, SayWhetherTheBestModelIsStillThere) {
  const TemporaryFolder folder;
  const fs::path run = folder / "run";
  write_run(run, 40, "first");
  const auto best = [&] {
    for (const auto& [name, text] : run_figures(read_run(run)))
      if (name == "validation loss, best") return text;
    return std::string();
  };
  EXPECT_THAT(best(), testing::EndsWith(" at step 40"));
  fs::create_directories(run / "checkpoints" / "step-00000040");
  EXPECT_THAT(best(), testing::EndsWith(" at step 40")) << "a folder without a manifest is none";
  write_text(run / "checkpoints" / "step-00000040" / "manifest.json", "{}");
  EXPECT_THAT(best(), testing::EndsWith(" at step 40 (checkpoint kept)"));
}

}  // namespace
}  // namespace polysketch
