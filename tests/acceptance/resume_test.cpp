// SPDX-License-Identifier: Apache-2.0
// A run that is stopped or killed, at whatever moment, and continued by the same command equals one
// that nobody disturbed, bit for bit.
#include <gmock/gmock.h>

#include "acceptance/workplace.hpp"
#include "checkpoint/manifest.hpp"
#include "data/batch_stream.hpp"
#include "support/philox.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int64_t kSteps = 20;
constexpr int kStopped = 75;

struct Recipe {
  std::string precision;
  int accumulation;  ///< micro-batches of a step
  std::string dropout;

  Words settings() const {
    return {"training.precision=" + precision,
            "training.micro_batch_tokens=" + std::to_string(1024 / accumulation),
            "model.dropout=" + dropout, "evaluation.every=7", "checkpoint.every=6"};
  }
  std::string name() const {
    return fmt::format("{}_{}_{}", precision, accumulation, dropout == "0" ? "0" : "1");
  }
};

std::vector<Row> lasting_rows(const fs::path& run, const std::string& event) {
  std::vector<Row> rows;
  for (const Row& row : metric_rows(run, event)) rows.push_back(lasting(row));
  return rows;
}

/// Losses, digests and learning rates of every step, validations, and everything that the last
/// checkpoint holds.
void expect_same_run(const fs::path& run, const fs::path& whole, int64_t last = kSteps) {
  const auto steps = lasting_rows(run, "step"), wanted = lasting_rows(whole, "step");
  ASSERT_EQ(wanted.size(), static_cast<size_t>(last));
  ASSERT_EQ(steps.size(), wanted.size()) << "rows are missing or stand twice";
  for (size_t i = 0; i < wanted.size(); ++i) ASSERT_EQ(steps[i], wanted[i]);
  EXPECT_EQ(lasting_rows(run, "validation"), lasting_rows(whole, "validation"));
  for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
    // The bytes are compared here, since a message with both of them would not help.
    EXPECT_TRUE(read_text(checkpoint_path(run, last) / name) ==
                read_text(checkpoint_path(whole, last) / name))
        << name << " differs";
  }
  const auto state = [&](const fs::path& folder) {
    return Row::parse(read_text(checkpoint_path(folder, last) / "manifest.json"))
        .at("state")
        .at("train");
  };
  EXPECT_EQ(state(run), state(whole));
}

bool shows_step(const fs::path& run, int64_t step) {
  const auto rows = metric_rows(run, "step");
  return !rows.empty() && rows.back().at("step") >= step;
}

/// Starts or continues the run and stops it, aiming at the end of step `step`. Returns the step
/// that it stopped after.
int64_t stop_at(const Words& command, const fs::path& run, int64_t step) {
  RunningProgram program(command);
  // The request is seen when a step begins, so it must arrive while the wanted step is under way:
  // when the one before it is on record, with the validation and the checkpoint that follow it.
  const auto shows = [&](const char* event) {
    const auto rows = metric_rows(run, event);
    return !rows.empty() && rows.back().at("step") >= step - 1;
  };
  program.wait_for([&] {
    if (step <= 1) return !metric_rows(run, "start").empty();
    return shows("step") && ((step - 1) % 7 != 0 || shows("validation")) &&
           ((step - 1) % 6 != 0 || shows("checkpoint"));
  });
  program.signal(SIGTERM);
  const int code = program.wait();
  const auto saved = checkpoint_steps(run);
  if (saved.empty() || code == 0) return kSteps;
  EXPECT_EQ(code, kStopped) << program.errors();
  return saved.back();
}

class Resume : public testing::TestWithParam<Recipe> {
 protected:
  /// The run that nobody disturbs.
  fs::path whole() const {
    const std::string name = "whole_" + GetParam().name();
    if (checkpoint_steps(workplace().run(name)).empty())
      workplace().train(name, GetParam().settings());
    return workplace().run(name);
  }
};

/// The run is stopped after every second step, all the time; once after the odd steps, once after
/// the even ones.
TEST_P(Resume, StoppedAgainAndAgain) {
  const fs::path reference = whole();
  for (const int64_t first : {1, 2}) {
    const std::string name = fmt::format("chain_{}_{}", GetParam().name(), first);
    const fs::path run = workplace().run(name), backup = workplace().run(name + "_backup");
    const Words command = workplace().train_command(name, GetParam().settings());
    for (int64_t step = first; step < kSteps; step += 2) {
      // The signal may come a step late on a busy machine; then the attempt is repeated from where
      // it began.
      fs::remove_all(backup);
      if (fs::exists(run)) fs::copy(run, backup, fs::copy_options::recursive);
      int64_t stopped = -1;
      for (int attempt = 0; attempt < 40 && stopped != step; ++attempt) {
        fs::remove_all(run);
        if (fs::exists(backup)) fs::copy(backup, run, fs::copy_options::recursive);
        stopped = stop_at(command, run, step);
      }
      ASSERT_EQ(stopped, step);
    }
    const ProcessResult result = polysketch(command);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    expect_same_run(run, reference);
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, Resume,
                         testing::Values(Recipe{"fp32", 1, "0.1"}, Recipe{"bf16", 4, "0"},
                                         Recipe{"bf16", 1, "0.1"}),
                         [](const auto& given) { return given.param.name(); });

const Recipe kRecipe{"fp32", 4, "0.1"};

fs::path whole_run() {
  if (checkpoint_steps(workplace().run("whole")).empty())
    workplace().train("whole", kRecipe.settings());
  return workplace().run("whole");
}

/// Stopped once, after each step in turn.
TEST(Stop, AfterEveryStep) {
  const fs::path reference = whole_run(), run = workplace().run("stopped");
  const Words command = workplace().train_command("stopped", kRecipe.settings());
  for (int64_t step = 1; step < kSteps; ++step) {
    SCOPED_TRACE(fmt::format("stopped after step {}", step));
    int64_t stopped = -1;
    for (int attempt = 0; attempt < 40 && stopped != step; ++attempt) {
      fs::remove_all(run);
      stopped = stop_at(command, run, step);
    }
    ASSERT_EQ(stopped, step);
    const ProcessResult result = polysketch(command);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    expect_same_run(run, reference);
  }
}

/// Killed without warning at random instants, until it gets through.
TEST(Stop, KilledAtRandomInstants) {
  const auto start = std::chrono::steady_clock::now();
  const fs::path reference = whole_run(), run = workplace().run("killed");
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Words command = workplace().train_command(
      "killed", {"training.precision=fp32", "training.micro_batch_tokens=256", "model.dropout=0.1",
                 "evaluation.every=7", "checkpoint.every=2"});
  Philox random(11, RandomPurpose::test);
  int killed = 0;
  for (int i = 0; i < 10; ++i) {
    RunningProgram program(command);
    std::this_thread::sleep_for(
        std::chrono::duration<double>(std::min(seconds, 3.0) * random.uniform()));
    program.signal(SIGKILL);
    if (program.wait() == 128 + SIGKILL) ++killed;
  }
  EXPECT_GT(killed, 0);
  const ProcessResult result = polysketch(command);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  expect_same_run(run, reference);
  for (const auto& entry : fs::directory_iterator(run / "checkpoints"))
    EXPECT_TRUE(entry.path().filename().string().starts_with("step-"))
        << "left over: " << entry.path();
}

TEST(Stop, BeforeTheFirstStep) {
  const fs::path reference = whole_run(), run = workplace().run("early");
  const Words command = workplace().train_command("early", kRecipe.settings());
  for (int attempt = 0; attempt < 20; ++attempt) {
    fs::remove_all(run);
    RunningProgram program(command);
    // set up has begun, no model yet
    program.wait_for([&] { return fs::exists(run / "run.json"); });
    program.signal(SIGTERM);
    ASSERT_EQ(program.wait(), kStopped) << program.errors();
    if (checkpoint_steps(run) == std::vector<int64_t>{0}) break;
  }
  ASSERT_EQ(checkpoint_steps(run), std::vector<int64_t>{0});
  const ProcessResult result = polysketch(command);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  expect_same_run(run, reference);
}

/// A validation that is cut short leaves no row; the continued run makes it anew, once.
TEST(Stop, DuringValidation) {
  Words settings = kRecipe.settings();
  for (const char* more : {"evaluation.every=5", "evaluation.split=train", "evaluation.tokens=all",
                           "training.steps=10"})
    settings.push_back(more);
  const fs::path reference = workplace().run("validating_whole"),
                 run = workplace().run("validating");
  workplace().train("validating_whole", settings);
  const Words command = workplace().train_command("validating", settings);
  bool cut_short = false;
  for (int attempt = 0; attempt < 20 && !cut_short; ++attempt) {
    fs::remove_all(run);
    RunningProgram program(command);
    program.wait_for([&] { return shows_step(run, 5); });
    program.signal(SIGTERM);
    ASSERT_EQ(program.wait(), kStopped) << program.errors();
    cut_short = metric_rows(run, "validation").empty() && checkpoint_steps(run).back() == 5;
  }
  ASSERT_TRUE(cut_short);
  const ProcessResult result = polysketch(command);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  expect_same_run(run, reference, 10);
}

/// The second signal ends the program at once; what was committed stays good.
TEST(Stop, SecondSignalEndsAtOnce) {
  for (const auto& [second, code] : {std::pair{SIGTERM, 143}, std::pair{SIGINT, 130}}) {
    const std::string name = fmt::format("twice_{}", second);
    const fs::path run = workplace().run(name);
    // One step takes long enough for both signals.
    const Words command = workplace().train_command(
        name, {"training.batch_tokens=64Ki", "training.micro_batch_tokens=1Ki", "training.steps=3",
               "checkpoint.every=1", "evaluation.every=0"});
    RunningProgram program(command);
    program.wait_for([&] { return !checkpoint_steps(run).empty(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    program.signal(SIGTERM);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    program.signal(second);
    EXPECT_EQ(program.wait(), code) << program.errors();
    EXPECT_EQ(polysketch({"checkpoint", "verify", run.string()}).exit_code, 0);
    EXPECT_EQ(polysketch(command).exit_code, 0);
    EXPECT_EQ(metric_rows(run, "step").size(), 3u);
  }
}

TEST(Stop, EverySignalThatAsksForIt) {
  for (const int number : {SIGINT, SIGUSR1}) {
    const fs::path run = workplace().run("asked");
    fs::remove_all(run);
    RunningProgram program(workplace().train_command("asked", {"training.steps=1000"}));
    program.wait_for([&] { return shows_step(run, 1); });
    program.signal(number);
    EXPECT_EQ(program.wait(), kStopped) << program.errors();
    EXPECT_EQ(metric_rows(run).back().at("event"), "stop");
  }
}

TEST(RunLock, SecondProcessIsRefused) {
  const fs::path run = workplace().run("busy");
  RunningProgram first(
      workplace().train_command("busy", {"training.steps=100k", "schedule.warmup=0"}));
  ASSERT_TRUE(first.wait_for([&] { return shows_step(run, 1); })) << first.errors();
  const ProcessResult second = polysketch(workplace().train_command("busy"));
  EXPECT_EQ(second.exit_code, 73);
  EXPECT_THAT(second.err, HasSubstr("ERROR 73:"));
  EXPECT_THAT(second.err, HasSubstr(std::to_string(first.process())));
  first.signal(SIGTERM);
  EXPECT_EQ(first.wait(), kStopped) << first.errors();
}

/// The order of tokens is a function of the seed and the position alone.
TEST(Order, DoesNotDependOnThreads) {
  const fs::path reference = whole_run(), run = workplace().run("threads");
  for (const char* threads : {"1", "3"}) {
    fs::remove_all(run);
    Words settings = kRecipe.settings();
    settings.push_back(std::string("data.threads=") + threads);
    // so that they do tokenise
    settings.push_back("data.cache=" + (workplace().path() / "cache" / threads).string());
    workplace().train("threads", settings);
    expect_same_run(run, reference);
  }
}

/// Digest of windows 160 to 319, steps 11 to 20, in the order of a version.
uint64_t digest_of_second_half(int version) {
  DataConfig data;
  data.corpus = "text";
  data.root = workplace().corpus().string();
  data.context = 64;
  data.cache = (workplace().path() / "cache").string();
  BatchStream::Options options;
  options.sequences_per_step = options.rows_per_batch = 16;
  options.start_sequence = 160;
  options.order_version = version;
  BatchStream stream(data, Corpus::open(data), Tokenizer(workplace().tokenizer().string()),
                     options);
  uint64_t digest = 0;
  for (int step = 11; step <= 20; ++step) digest += stream.next().digest;
  return digest;
}

/// A checkpoint says by which order of windows its run goes on; those that say nothing were made
/// when there was only the first.
TEST(Order, IsTheOneThatTheRunBeganWith) {
  const fs::path run = workplace().run("order"), half = checkpoint_path(run, 10),
                 end = checkpoint_path(run, 20);
  workplace().train("order");
  fs::remove_all(end);
  const Manifest written = parse_manifest(read_text(half / "manifest.json"), half);
  const auto digest = [](const nlohmann::json& train) {
    return std::stoull(train.at("token_digest").get<std::string>(), nullptr, 16);
  };
  ASSERT_EQ(written.state.at("train").at("order_version"), kNewestOrder);
  // Goes on from the checkpoint as if it had been written with this version.
  const auto go_on = [&](std::optional<int> version) {
    Manifest changed = written;
    nlohmann::json& train = changed.state["train"];
    train.erase("order_version");
    if (version) train["order_version"] = *version;
    write_text(half / "manifest.json", manifest_text(changed));
    return polysketch(workplace().train_command("order"));
  };
  for (const auto& [version, order] : {std::pair<std::optional<int>, int>{std::nullopt, 1},
                                       {1, 1},
                                       {kNewestOrder, kNewestOrder}}) {
    const ProcessResult result = go_on(version);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const nlohmann::json train =
        parse_manifest(read_text(end / "manifest.json"), end).state.at("train");
    EXPECT_EQ(digest(train) - digest(written.state.at("train")), digest_of_second_half(order));
    EXPECT_EQ(train.at("order_version"), order);
    fs::remove_all(end);
  }
  const ProcessResult newer = go_on(kNewestOrder + 1);
  EXPECT_EQ(newer.exit_code, 81);
  EXPECT_THAT(newer.err, HasSubstr(fmt::format("version {} of the order", kNewestOrder + 1)));
  EXPECT_EQ(polysketch({"evaluate", "perplexity", run.string(), "--split", "test"}).exit_code, 0)
      << "which does not need it";
}

TEST(Order, DependsOnTheSeed) {
  workplace().train("seed_one", {"training.steps=2", "schedule.warmup=1", "run.seed=1"});
  workplace().train("seed_two", {"training.steps=2", "schedule.warmup=1", "run.seed=2"});
  const auto digest = [](const char* name) {
    return metric_rows(workplace().run(name), "step").back().at("token_digest");
  };
  EXPECT_NE(digest("seed_one"), digest("seed_two"));
}

}  // namespace
}  // namespace polysketch::test
