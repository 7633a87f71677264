// SPDX-License-Identifier: Apache-2.0
#include "reporting/metric_sink.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "helpers/test_helpers.hpp"
#include "support/hash.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::read_text;
using test::TemporaryFolder;
using test::write_text;
using testing::HasSubstr;
using testing::Not;

MetricRecord step_record(int64_t step) {
  return {"step",
          step,
          step * 1000,
          {{"loss", 4.213},
           {"perplexity", 67.558},
           {"learning_rate", 6.9e-4},
           {"gradient_norm", 0.834},
           {"tokens_per_second", 1210.0},
           {"seconds_per_step", 0.5},
           {"data_wait_fraction", 0.001},
           {"peak_bytes", int64_t{3328599654}},
           {"token_digest", "00ff"},
           {"epoch", 0}}};
}

std::vector<nlohmann::json> rows_of(const fs::path& path) {
  std::vector<nlohmann::json> rows;
  std::istringstream text(read_text(path));
  for (std::string line; std::getline(text, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

/// What is written to standard error meanwhile.
template <typename Action>
std::string errors_of(Action action) {
  testing::internal::CaptureStderr();
  action();
  return testing::internal::GetCapturedStderr();
}

TEST(JsonlSink, WritesOneRowARecordWithFieldsInOrder) {
  const TemporaryFolder folder;
  const fs::path path = folder / "metrics.jsonl";
  make_jsonl_sink(path.string(), 0)->record(step_record(3));
  const std::string text = read_text(path);
  EXPECT_THAT(text,
              testing::StartsWith("{\"event\":\"step\",\"step\":3,\"tokens\":3000,\"time\":"));
  EXPECT_LT(text.find("\"loss\":4.213"), text.find("\"perplexity\""));
  EXPECT_EQ(text.back(), '\n');
  EXPECT_EQ(rows_of(path).at(0).at("peak_bytes"), 3328599654);
}

TEST(JsonlSink, WritesNumbersThatAreNotFiniteAsNull) {
  const TemporaryFolder folder;
  const fs::path path = folder / "metrics.jsonl";
  MetricRecord record{"step",
                      1,
                      2,
                      {{"loss", std::nan("")},
                       {"gradient_norm", std::numeric_limits<double>::infinity()},
                       {"path", "\xFF"}}};
  make_jsonl_sink(path.string(), 0)->record(record);
  EXPECT_TRUE(rows_of(path).at(0).at("loss").is_null());
  EXPECT_TRUE(rows_of(path).at(0).at("gradient_norm").is_null());
}

TEST(JsonlSink, IsReadableAfterEveryRecord) {
  const TemporaryFolder folder;
  const fs::path path = folder / "metrics.jsonl";
  const auto sink = make_jsonl_sink(path.string(), 0);
  for (int64_t step = 1; step <= 5; ++step) {
    sink->record(step_record(step));
    EXPECT_EQ(rows_of(path).size(), static_cast<size_t>(step)) << "a killed run must keep its rows";
  }
}

/// Rows of an earlier life of the run; each step must stand in the file once after the run was
/// resumed and repeated what was lost.
TEST(JsonlSink, CutsOffRowsBeyondTheCheckpointAtEveryStep) {
  for (int64_t resume = 0; resume <= 6; ++resume) {
    const TemporaryFolder folder;
    const fs::path path = folder / "metrics.jsonl";
    {
      const auto sink = make_jsonl_sink(path.string(), 0);
      sink->record({"start", 0, 0, {}});
      for (int64_t step = 1; step <= 6; ++step) sink->record(step_record(step));
    }
    write_text(path, read_text(path) +
                         "{\"event\":\"step\",\"step\":7,\"tok");  // died in the middle of a row
    const auto sink = make_jsonl_sink(path.string(), resume);
    for (int64_t step = resume + 1; step <= 8; ++step) sink->record(step_record(step));
    const auto rows = rows_of(path);
    ASSERT_EQ(rows.size(), 9U) << "resumed at " << resume;
    for (int64_t step = 0; step <= 8; ++step)
      EXPECT_EQ(rows[static_cast<size_t>(step)].at("step"), step);
  }
}

TEST(JsonlSink, PutsAFileInOrderThatTwoRunsWroteByTurns) {
  const TemporaryFolder folder;
  const fs::path path = folder / "metrics.jsonl";
  std::string text;
  for (const int step : {1, 2, 9, 3})
    text += "{\"event\":\"step\",\"step\":" + std::to_string(step) + "}\n";
  write_text(path, text + "no json\n{\"step\": 4, \"event\": \"spelled otherwise\"}\n");
  make_jsonl_sink(path.string(), 5);
  std::vector<int> steps;
  for (const auto& row : rows_of(path)) steps.push_back(row.at("step").get<int>());
  EXPECT_THAT(steps, testing::ElementsAre(1, 2, 3, 4));
}

TEST(Sinks, WarnOnceAndGoOnWhereTheyCannotWrite) {
  const TemporaryFolder folder;
  write_text(folder / "file", "");
  const std::string errors = errors_of([&] {
    const auto rows = make_jsonl_sink((folder / "file" / "metrics.jsonl").string(), 3);
    const auto events = make_tensorboard_sink((folder / "file" / "tensorboard").string());
    for (int64_t step = 1; step <= 3; ++step) {
      rows->record(step_record(step));
      events->record(step_record(step));
    }
    rows->flush();
    events->flush();
  });
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 2) << errors;
  EXPECT_THAT(errors, testing::AllOf(HasSubstr("metrics.jsonl from here on is missing"),
                                     HasSubstr("TensorBoard event file from here on")));
}

TEST(Sinks, WarnOnceWhenTheDiskIsFull) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "/dev/full is missing";
  const TemporaryFolder folder;
  fs::create_symlink("/dev/full", folder / "metrics.jsonl");
  const std::string errors = errors_of([&] {
    const auto sink = make_jsonl_sink((folder / "metrics.jsonl").string(), 0);
    for (int64_t step = 1; step <= 3; ++step) sink->record(step_record(step));
  });
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
}

/// A disk that fills in the middle of a row, played by the limit of a file's size.
TEST(Sinks, LeaveNoHalfRowWhenTheDiskFillsUp) {
  const TemporaryFolder folder;
  const fs::path path = folder / "metrics.jsonl";
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  const std::string errors = errors_of([&] {
    const auto sink = make_jsonl_sink(path.string(), 0);
    const rlimit limit{500, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int64_t step = 1; step <= 5; ++step) sink->record(step_record(step));
    setrlimit(RLIMIT_FSIZE, &before);
  });
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(rows_of(path).size(), 1U);
  EXPECT_THAT(errors, HasSubstr("metrics.jsonl"));
}

/// The records of an event file, taken apart as its format says: length, masked CRC of it, content,
/// masked CRC of that.
std::vector<std::string> event_records(const fs::path& folder, bool& whole) {
  std::string text;
  for (const auto& entry : fs::directory_iterator(folder)) text += read_text(entry.path());
  std::vector<std::string> records;
  whole = true;
  for (size_t at = 0; at < text.size();) {
    uint64_t length = 0;
    uint32_t length_crc = 0, content_crc = 0;
    if (text.size() - at < 12) return whole = false, records;
    std::memcpy(&length, text.data() + at, 8);
    std::memcpy(&length_crc, text.data() + at + 8, 4);
    EXPECT_EQ(length_crc, masked_crc32c(text.data() + at, 8));
    if (text.size() - at < 16 + length) return whole = false, records;
    records.push_back(text.substr(at + 12, length));
    std::memcpy(&content_crc, text.data() + at + 12 + length, 4);
    EXPECT_EQ(content_crc, masked_crc32c(records.back().data(), length));
    at += 16 + length;
  }
  return records;
}

TEST(TensorboardSink, WritesFramedRecordsThatSayItsVersionFirst) {
  const TemporaryFolder folder;
  {
    const auto sink = make_tensorboard_sink(folder.path().string());
    sink->record(step_record(1));
    sink->record({"validation", 1, 1000, {{"loss", 3.5}}});
    sink->record({"checkpoint", 1, 1000, {{"seconds", 3.5}}});
  }
  EXPECT_THAT(fs::directory_iterator(folder.path())->path().filename().string(),
              HasSubstr("tfevents"));
  bool whole = false;
  const auto records = event_records(folder.path(), whole);
  EXPECT_TRUE(whole);
  ASSERT_EQ(records.size(), 3U) << "checkpoints are no scalars";
  EXPECT_THAT(records[0], HasSubstr("brain.Event:2"));
  EXPECT_THAT(records[1], testing::AllOf(HasSubstr("step/loss"), HasSubstr("step/gradient_norm"),
                                         Not(HasSubstr("token_digest"))));
  const auto value = std::bit_cast<std::array<char, 4>>(4.213F);
  EXPECT_THAT(records[1],
              HasSubstr("\x0a\x09step/loss\x15" + std::string(value.data(), value.size())));
  EXPECT_THAT(records[2], HasSubstr("validation/loss"));
}

MetricRecord diagnostics_record(int64_t step) {
  return {
      "diagnostics",
      step,
      step * 1000,
      {{"sketch_error", 0.25},
       {"sketch_error_worst", 0.5},
       {"effective_rank", 7.125},
       {"effective_rank_worst", 3.0},
       {"queries", 32},
       {"layers", {{{"head", 1}, {"sketch_error", 0.5}}, {{"head", 0}, {"effective_rank", 3.0}}}},
       {"seconds", 0.01}}};
}

TEST(TensorboardSink, NamesTheFiguresOfEachLayer) {
  const TemporaryFolder folder;
  make_tensorboard_sink(folder.path().string())->record(diagnostics_record(3));
  bool whole = false;
  const auto records = event_records(folder.path(), whole);
  ASSERT_EQ(records.size(), 2U);
  for (const char* tag : {"diagnostics/sketch_error", "diagnostics/layers/00/sketch_error",
                          "diagnostics/layers/01/effective_rank"})
    EXPECT_THAT(records[1], HasSubstr(tag));
  EXPECT_THAT(records[1], Not(HasSubstr("layers/01/sketch_error")))
      << "what a layer lacks is not there";
}

TEST(TensorboardSink, HidesWhatARunWroteAfterItsCheckpoint) {
  const TemporaryFolder folder;
  make_tensorboard_sink(folder.path().string())->record({"start", 500, 1, {}});
  bool whole = false;
  const auto records = event_records(folder.path(), whole);
  ASSERT_EQ(records.size(), 2U);
  EXPECT_THAT(records[1], testing::EndsWith(std::string("\x10\xF5\x03\x3A\x02\x08\x01", 7)))
      << "step 501, a session that starts";
}

TEST(TensorboardSink, CanBeReadUpToWhereItWasCut) {
  const TemporaryFolder folder;
  {
    const auto sink = make_tensorboard_sink(folder.path().string());
    for (int64_t step = 1; step <= 3; ++step) sink->record(step_record(step));
  }
  const fs::path path = fs::directory_iterator(folder.path())->path();
  fs::resize_file(path, fs::file_size(path) - 5);
  bool whole = true;
  EXPECT_EQ(event_records(folder.path(), whole).size(), 3U);
  EXPECT_FALSE(whole);
}

std::string console(const ConsoleOptions& options, const std::vector<MetricRecord>& records) {
  return errors_of([&] {
    const auto sink = make_console_sink(options);
    for (const MetricRecord& record : records) sink->record(record);
  });
}

TEST(ConsoleSink, WritesALineThatReadsWell) {
  const std::string line =
      console({.total_steps = 125'000, .start_step = 1000, .every = 1230}, {step_record(1230)});
  EXPECT_EQ(line,
            "step   1,230/125,000 | loss 4.213 | ppl  67.6 | lr 6.9e-04 | norm 0.83 | 1.21k tok/s "
            "| data 0.1 % | 3.1 GiB | eta 17:11:25\n");
}

TEST(ConsoleSink, ShowsUtilisationWhereItIsKnown) {
  MetricRecord record = step_record(10);
  record.fields["mfu"] = 0.412;
  EXPECT_THAT(console({.total_steps = 100}, {record}), HasSubstr("| mfu 41.2 % |"));
  EXPECT_THAT(console({.total_steps = 100}, {step_record(10)}), Not(HasSubstr("mfu")));
}

TEST(ConsoleSink, WritesTheFirstTheLastAndEveryTenthStep) {
  std::vector<MetricRecord> records;
  for (int64_t step = 4; step <= 33; ++step) records.push_back(step_record(step));
  const std::string lines = console({.total_steps = 33, .start_step = 3, .every = 10}, records);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 5);
  for (const char* step : {"step  4/33", "step 10/33", "step 20/33", "step 30/33", "step 33/33"})
    EXPECT_THAT(lines, HasSubstr(step));
  EXPECT_THAT(lines.substr(lines.find("step 33/33")), Not(HasSubstr("eta")));
}

TEST(ConsoleSink, AveragesSpeedOverTheStepsOfALine) {
  MetricRecord fast = step_record(1), slow = step_record(2);
  fast.fields["seconds_per_step"] = 1.0;
  fast.fields["tokens_per_second"] = 900.0;
  slow.fields["seconds_per_step"] = 9.0;
  slow.fields["tokens_per_second"] = 100.0;
  EXPECT_THAT(console({.total_steps = 100, .start_step = -5, .every = 2}, {fast, slow}),
              HasSubstr("  180 tok/s"))
      << "1800 tokens in 10 seconds";
}

TEST(ConsoleSink, ForgetsTheSlowFirstStepInItsForecast) {
  std::vector<MetricRecord> records;
  for (int64_t step = 1; step <= 40; ++step) records.push_back(step_record(step));
  records[0].fields["seconds_per_step"] = 300.0;
  EXPECT_THAT(console({.total_steps = 100, .every = 40}, records), HasSubstr("eta 0:30\n"));
}

std::vector<std::string> lines_with(const std::string& text, const std::string& part) {
  std::vector<std::string> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.find(part) != std::string::npos) found.push_back(line);
  }
  return found;
}

TEST(ConsoleSink, ForecastsALongRunOnceSomeStepsAreMeasured) {
  std::vector<MetricRecord> records;
  for (int64_t step = 101; step <= 140; ++step) records.push_back(step_record(step));
  records[0].fields["seconds_per_step"] = 300.0;  // the first step of a start
  records[3].fields["seconds_per_step"] = 30.0;   // one that was held up
  const ConsoleOptions options{.total_steps = 10'106, .start_step = 100, .every = 1000};
  const auto lines = lines_with(console(options, records), "forecast");
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_THAT(lines[0], testing::MatchesRegex(
                            "forecast: 10,000 more steps at 1\\.21k tok/s: 1:23:20, done about "
                            "[^ ]+ [0-9][0-9]:[0-9][0-9]; validation and checkpoints come on top"));
}

TEST(ConsoleSink, ForecastsNothingOfAShortRun) {
  std::vector<MetricRecord> records;
  for (int64_t step = 1; step <= 20; ++step) records.push_back(step_record(step));
  EXPECT_THAT(console({.total_steps = 100}, records), Not(HasSubstr("forecast")));
}

TEST(NextSteps, AreCommandsThatAShellTakes) {
  EXPECT_EQ(next_steps("runs/demo-1"),
            "next: polysketch evaluate perplexity runs/demo-1; polysketch generate runs/demo-1 "
            "--prompt 'Once'; polysketch report runs/demo-1");
  EXPECT_THAT(next_steps("my runs/a'b"), HasSubstr("polysketch report 'my runs/a'\\''b'"));
}

TEST(ConsoleSink, SaysThatALossIsNotFinite) {
  MetricRecord record = step_record(10);
  record.fields["loss"] = std::nan("");
  record.fields["perplexity"] = std::numeric_limits<double>::infinity();
  EXPECT_THAT(console({.total_steps = 100}, {record}),
              testing::AllOf(HasSubstr("loss nan"), HasSubstr("ppl   inf")));
}

TEST(ConsoleSink, TellsOfValidationCheckpointAndStop) {
  const std::string lines = console(
      {.total_steps = 5000}, {{"validation",
                               2500,
                               1,
                               {{"loss", 3.9},
                                {"perplexity", 49.4},
                                {"bits_per_byte", 1.302},
                                {"tokens_scored", 1'050'000},
                                {"seconds", 12.34}}},
                              {"validation", 2600, 1, {{"loss", 3.8}, {"perplexity", 44.7}}},
                              {"validation", 2700, 1, {{"loss", 3.85}, {"perplexity", 46.9}}},
                              {"checkpoint",
                               2700,
                               1,
                               {{"path", "runs/x/checkpoints/step-00002700"},
                                {"bytes", int64_t{1331429376}},
                                {"seconds", 75.0}}},
                              {"stop", 2700, 1'321'205'760, {{"token_digest", "00"}}}});
  EXPECT_EQ(
      lines,
      "validation at 2,500 | loss 3.9000 | ppl 49.4 | 1.3020 bits/byte | 1.05M tokens in 12.3 s\n"
      "validation at 2,600 | loss 3.8000 | ppl 44.7 | best so far, was 3.9000\n"
      "validation at 2,700 | loss 3.8500 | ppl 46.9\n"
      "checkpoint at 2,700 | runs/x/checkpoints/step-00002700 | 1.24 GiB in 1:15\n"
      "stopped at step 2,700/5,000 | 1.32B tokens\n");
}

TEST(ConsoleSink, ShowsTheFiguresThatAKindHas) {
  EXPECT_EQ(console({.total_steps = 5000}, {diagnostics_record(2500)}),
            "diagnostics at 2,500 | sketch error 0.25, worst 0.5 | rank 7.12, worst 3\n");
}

TEST(ConsoleSink, ManagesWithoutAnyFields) {
  EXPECT_EQ(console({.total_steps = 100}, {{"step", 10, 1, {}}}), "step  10/100\n");
}

}  // namespace
}  // namespace polysketch
