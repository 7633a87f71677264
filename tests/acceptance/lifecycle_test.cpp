// SPDX-License-Identifier: Apache-2.0
// How a run begins and ends when something is wrong: what it will need is looked at before the
// first step, a start that is refused changes nothing, an error saves what was done first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>

#include "process_group.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// A corpus of one test: a copy of the workplace's text.
class Lifecycle : public testing::Test {
 protected:
  Lifecycle() { fs::copy(workplace().corpus(), text(), fs::copy_options::recursive); }
  fs::path text() const { return folder_ / "text"; }
  fs::path run() const { return folder_ / "run"; }
  Words command(const Words& settings, const Words& flags = {}) const {
    Words words{"train", workplace().config().string()};
    Words all{"run.directory=" + run().string(), "data.root=" + text().string(),
              "logging.tensorboard=false"};
    all.insert(all.end(), settings.begin(), settings.end());
    for (const auto& setting : all) {
      words.push_back("--set");
      words.push_back(setting);
    }
    words.insert(words.end(), flags.begin(), flags.end());
    return words;
  }
  ProcessResult train(const Words& settings = {}, const Words& flags = {}) const {
    return polysketch(command(settings, flags));
  }
  std::map<std::string, std::string> everything() const {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(run())) {
      const std::string name = fs::relative(entry.path(), run()).string();
      all[name] = entry.is_regular_file() ? read_text(entry.path()) : "folder";
    }
    return all;
  }
  /// Adds a damaged document that the run meets after some steps, in the order of the files.
  void damage_training() const { write_text(text() / "train/zzz.txt", std::string("ab\0c", 4)); }

  TemporaryFolder folder_;
};

TEST_F(Lifecycle, WhatTheRunWillNeedIsLookedAtBeforeTheFirstStep) {
  struct Case {
    const char* name;
    std::function<void()> spoil;
    int code;
    const char* says;
    Words settings;
  };
  const fs::path validation = text() / "validation";
  const std::vector<Case> cases{
      {"validation missing", [&] { fs::remove_all(validation); }, 66, "validation", {}},
      {"validation damaged",
       [&] { write_text(validation / "v.txt", std::string("a\0b", 3)); },
       65,
       "v.txt: record 0",
       {}},
      {"validation empty", [&] { write_text(validation / "v.txt", ""); }, 65, "holds no text", {}},
      {"test split missing",
       [&] { fs::remove_all(text() / "test"); },
       66,
       "test",
       {"evaluation.split=test"}},
      {"training missing", [&] { fs::remove_all(text() / "train"); }, 66, "train", {}},
      {"training damaged",
       [&] {
         fs::remove_all(text() / "train");
         write_text(text() / "train/t.txt", std::string("a\0b", 3));
       },
       65,
       "t.txt: record 0",
       {}},
      {"training too short",
       [&] {
         fs::remove_all(text() / "train");
         write_text(text() / "train/t.txt", "short");
       },
       65,
       "one window takes",
       {}},
      {"tokenizer missing", [] {}, 66, "no.model", {"data.tokenizer.path=no.model"}},
      {"cache not writable",
       [&] { write_text(folder_ / "file", ""); },
       73,
       "cache",
       {"data.cache=" + (folder_ / "file/cache").string()}},
  };
  for (const Case& given : cases) {
    SCOPED_TRACE(given.name);
    fs::remove_all(text());
    fs::copy(workplace().corpus(), text(), fs::copy_options::recursive);
    if (given.name == std::string("validation damaged") ||
        given.name == std::string("validation empty")) {
      fs::remove_all(validation);
    }
    given.spoil();
    const auto result = train(given.settings);
    EXPECT_EQ(result.exit_code, given.code) << result.err;
    EXPECT_THAT(result.err, AllOf(HasSubstr(given.says), Not(HasSubstr("step  1"))));
    EXPECT_FALSE(fs::exists(run())) << "a start that failed has left a run folder";
  }
}

TEST_F(Lifecycle, WithoutValidationsTheSplitIsNotNeeded) {
  fs::remove_all(text() / "validation");
  EXPECT_EQ(train({"evaluation.every=0", "training.steps=3"}).exit_code, 0);
}

TEST_F(Lifecycle, ARefusedCommandChangesNothing) {
  ASSERT_EQ(train().exit_code, 0);
  const auto before = everything();
  const std::vector<std::pair<Words, int>> refused{
      {{"model.layers=3", "run.seed=5"}, 78},
      {{"training.steps=30"}, 78},
      {{"training.steps=30", "data.root=" + (folder_ / "none").string()}, 78},
      {{"evaluation.every=4", "data.tokenizer.path=none.model"}, 0},
  };
  for (const auto& [settings, code] : refused) {
    const auto result = train(settings);
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_TRUE(everything() == before) << testing::PrintToString(settings);
  }
  // also where the configuration may change, but something else is wrong
  fs::remove_all(text() / "train");
  const auto result = train({"training.steps=30"}, {"--allow-config-change"});
  EXPECT_EQ(result.exit_code, 66) << result.err;
  EXPECT_TRUE(everything() == before);
}

TEST_F(Lifecycle, AFinishedRunSaysSoAndStaysAsItIs) {
  ASSERT_EQ(train().exit_code, 0);
  const auto before = everything();
  fs::remove_all(text());  // nothing is needed for that
  const auto result = train();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("nothing to do: the run is at step 20 of 20"));
  EXPECT_TRUE(everything() == before);
}

TEST_F(Lifecycle, AnErrorInTheDataSavesWhatWasDone) {
  damage_training();
  const Words settings{"checkpoint.every=0", "data.shuffle.enabled=false", "evaluation.every=0",
                       "training.steps=400"};
  const auto result = train(settings);
  EXPECT_EQ(result.exit_code, 65);
  EXPECT_THAT(result.err, AllOf(HasSubstr("zzz.txt: record 0"), HasSubstr("is saved")));
  const auto steps = static_cast<int64_t>(metric_rows(run(), "step").size());
  ASSERT_GT(steps, 3);
  EXPECT_EQ(checkpoint_steps(run()), std::vector<int64_t>{steps});
  EXPECT_EQ(metric_rows(run()).back().at("event"), "checkpoint");

  // The advice of the message is possible: going on without the record.
  Words more = settings;
  more.insert(more.end(), {"data.on_error=skip", "data.max_bad_fraction=0.5",
                           fmt::format("training.steps={}", steps + 3)});
  const auto next = train(more, {"--allow-config-change"});
  EXPECT_EQ(next.exit_code, 0) << next.err;
  EXPECT_EQ(static_cast<int64_t>(metric_rows(run(), "step").size()), steps + 3);
}

// What stands under the names of a run's files is either a run's, or nobody's to write over.
TEST_F(Lifecycle, NothingOfOthersIsWrittenOver) {
  fs::create_directories(run());
  const auto refused = [&](const char* name, const char* says) {
    const auto before = everything();
    const auto result = train();
    EXPECT_EQ(result.exit_code, 73) << result.err;
    EXPECT_THAT(result.err, AllOf(HasSubstr((run() / name).string()), HasSubstr(says)));
    EXPECT_TRUE(everything() == before);
    fs::remove_all(run() / name);
  };
  for (const char* name : {"config.yaml", "metrics.jsonl"}) {
    write_text(run() / name, "mine");
    refused(name, "no run has written it");
  }
  write_text(run() / "run.json", "{\"mine\": 1}");
  refused("run.json", "not of a run");
  for (const char* name : {"config.yaml", "run.json", "metrics.jsonl", "log.txt", "samples.txt"}) {
    ASSERT_EQ(::mkfifo((run() / name).c_str(), 0600), 0);
    refused(name, "a pipe");
    fs::create_directory(run() / name);
    refused(name, "a folder");
  }
  write_text(run() / "checkpoints", "");
  refused("checkpoints", "a file");
  write_text(run() / "notes.md", "not in the way");
  write_text(run() / "log.txt", "what a shell put there\n");
  EXPECT_EQ(train().exit_code, 0);
  EXPECT_EQ(train().exit_code, 0);  // its own files are not in the way
}

TEST_F(Lifecycle, FilesThatAreRemovedMeanwhileComeBack) {
  RunningProgram program(
      command({"training.steps=1M", "checkpoint.every=0", "evaluation.every=0"}));
  ASSERT_TRUE(program.wait_for([&] { return metric_rows(run(), "step").size() > 5; }));
  fs::remove(run() / "metrics.jsonl");
  fs::remove(run() / "log.txt");
  ASSERT_TRUE(program.wait_for(
      [&] { return fs::exists(run() / "metrics.jsonl") && fs::exists(run() / "log.txt"); }));
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 75) << program.errors();
  EXPECT_THAT(program.errors(), HasSubstr("metrics.jsonl: was removed"));
  const auto rows = metric_rows(run(), "step");
  EXPECT_EQ(rows.front().at("step"), 1);
  EXPECT_EQ(checkpoint_steps(run()), std::vector<int64_t>{static_cast<int64_t>(rows.size())});
}

// A folder that takes no checkpoint must not cost the steps.
TEST_F(Lifecycle, ARunWhoseFolderTakesNoCheckpointIsSavedBesideIt) {
  RunningProgram program(
      command({"training.steps=1M", "checkpoint.every=20", "evaluation.every=0"}));
  ASSERT_TRUE(program.wait_for([&] { return !checkpoint_steps(run()).empty(); }));
  fs::rename(run() / "checkpoints", folder_ / "taken");
  write_text(run() / "checkpoints", "");
  EXPECT_NE(program.wait(), 0);
  const fs::path beside = run().string() + ".rescued";
  EXPECT_THAT(program.errors(), HasSubstr("is saved in " + beside.string()));
  const auto rows = metric_rows(beside, "step");
  EXPECT_EQ(rows.front().at("step"), 1);
  EXPECT_EQ(checkpoint_steps(beside), std::vector<int64_t>{static_cast<int64_t>(rows.size())});
}

// The message says "fix the file" and "the same command continues": so it must.
TEST_F(Lifecycle, AMendedFileIsReadByTheSameCommand) {
  const auto digest = [&] { return metric_rows(run(), "end").back().at("token_digest"); };
  const Words settings{"checkpoint.every=0", "data.shuffle.enabled=false", "evaluation.every=0",
                       "training.steps=120"};
  write_text(text() / "train/zzz.txt", "abcd");
  ASSERT_EQ(train(settings).exit_code, 0);
  const auto whole = digest();
  for (const std::string& mended : {std::string("abcd"), std::string(5000, 'a')}) {
    fs::remove_all(run());
    damage_training();
    const auto broken = train(settings);
    EXPECT_EQ(broken.exit_code, 65) << broken.err;
    EXPECT_EQ(train(settings).exit_code, 65);  // as long as nobody mends it
    write_text(text() / "train/zzz.txt", mended);
    const auto result = train(settings);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, HasSubstr("train/zzz.txt: could not be read before"));
    if (mended.size() == 4) {
      EXPECT_EQ(digest(), whole);
    }
    Words longer = settings;
    longer.emplace_back("training.steps=125");
    const auto again = train(longer, {"--allow-config-change"});
    EXPECT_EQ(again.exit_code, 0) << again.err;
  }
  // What has been read since is compared again.
  write_text(text() / "train/zzz.txt", "other");
  Words longer = settings;
  longer.emplace_back("training.steps=130");
  EXPECT_EQ(train(longer, {"--allow-config-change"}).exit_code, 65);
}

TEST_F(Lifecycle, AnErrorInTheValidationSavesWhatWasDone) {
  // beyond what a start looks at
  std::string long_text(read_text(text() / "validation/four.txt"));
  while (long_text.size() < (3u << 20)) long_text += long_text;
  write_text(text() / "validation/four.txt", long_text + '\0');
  const auto result = train({"checkpoint.every=0", "evaluation.every=8", "evaluation.tokens=all",
                             "data.max_document_bytes=1Mi", "model.layers=1"});
  EXPECT_EQ(result.exit_code, 65) << result.err;
  EXPECT_EQ(checkpoint_steps(run()), std::vector<int64_t>{8}) << result.err;
}

TEST_F(Lifecycle, OtherTrainingFilesAreNoticed) {
  ASSERT_EQ(train().exit_code, 0);
  const Words longer{"training.steps=30"};
  const Words anyway{"--allow-config-change"};
  const auto before = everything();
  write_text(text() / "train/added.txt", "one more text");
  auto result = train(longer, anyway);
  EXPECT_EQ(result.exit_code, 65);
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("1 new (train/added.txt)"), HasSubstr("--allow-data-change")));
  fs::remove(text() / "train/added.txt");

  // as long as before, other letters
  const std::string one = read_text(text() / "train/one.txt");
  std::string other = one;
  std::replace(other.begin(), other.end(), 'e', 'o');
  write_text(text() / "train/one.txt", other);
  result = train(longer, anyway);
  EXPECT_EQ(result.exit_code, 65) << result.err;
  EXPECT_THAT(result.err, HasSubstr("train/one.txt: its content is not what it was"));
  EXPECT_TRUE(everything() == before);

  const auto forced = train(longer, {"--allow-config-change", "--allow-data-change"});
  EXPECT_EQ(forced.exit_code, 0) << forced.err;

  // The same files elsewhere are the same files.
  write_text(text() / "train/one.txt", other);
  fs::rename(text(), folder_ / "moved");
  const auto moved = train({"training.steps=40", "data.root=" + (folder_ / "moved").string()},
                           {"--allow-config-change"});
  EXPECT_EQ(moved.exit_code, 0) << moved.err;
}

TEST_F(Lifecycle, ARemovedRunFolderDoesNotComeBack) {
  const Words endless{"training.steps=1M", "checkpoint.every=20", "evaluation.every=0"};
  RunningProgram first(command(endless));
  ASSERT_TRUE(first.wait_for([&] { return metric_rows(run(), "step").size() > 5; }));
  fs::remove_all(run());
  // Somebody starts another run of this name.
  RunningProgram second(command(endless));
  EXPECT_EQ(first.wait(), 73) << first.errors();
  const fs::path beside = run().string() + ".rescued";
  EXPECT_THAT(first.errors(), AllOf(HasSubstr("the run folder was removed or replaced"),
                                    HasSubstr(beside.string())));
  EXPECT_EQ(metric_rows(beside, "step").front().at("step"), 1);  // all that it knew
  ASSERT_TRUE(second.wait_for([&] { return !checkpoint_steps(run()).empty(); }));
  second.signal(SIGTERM);
  EXPECT_EQ(second.wait(), 75) << second.errors();
  const auto steps = static_cast<int64_t>(metric_rows(run(), "step").size());
  EXPECT_EQ(checkpoint_steps(run()).back(), steps) << "another run has saved there";

  // Nothing of the first is lost: it goes on from where it was saved.
  const fs::path rescued = run().string() + ".rescued";
  ASSERT_EQ(checkpoint_steps(rescued).size(), 1u);
  const int64_t reached = checkpoint_steps(rescued).front();
  auto next = polysketch({"train", (rescued / "config.yaml").string(), "--set",
                          fmt::format("training.steps={}", reached + 2), "--set",
                          "schedule.warmup=1", "--allow-config-change"});
  EXPECT_EQ(next.exit_code, 0) << next.err;
  EXPECT_EQ(checkpoint_steps(rescued).back(), reached + 2);
}

TEST_F(Lifecycle, ARenamedRunFolderIsFollowed) {
  RunningProgram program(
      command({"training.steps=1M", "checkpoint.every=0", "evaluation.every=0"}));
  ASSERT_TRUE(program.wait_for([&] { return metric_rows(run(), "step").size() > 5; }));
  const fs::path kept = folder_ / "kept";
  fs::rename(run(), kept);
  ASSERT_TRUE(
      program.wait_for([&] { return program.errors().find("was renamed") != std::string::npos; }));
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 75) << program.errors();
  EXPECT_FALSE(fs::exists(run()));
  EXPECT_EQ(checkpoint_steps(kept).back(), static_cast<int64_t>(metric_rows(kept, "step").size()));
}

/// Errors of one process of several are errors of all, and nothing that was done is lost.
TEST_F(Lifecycle, AnErrorOfOneProcessOfSeveralSavesWhatWasDone) {
  const fs::path own = folder_ / "own";  // the copy of rank 1
  fs::copy(text(), own, fs::copy_options::recursive);
  const auto damaged = [&](const fs::path& root, bool bad) {
    write_text(root / "train/zzz.txt", bad ? std::string("ab\0c", 4) : std::string("abcd"));
  };
  damaged(text(), false);
  damaged(own, true);
  for (const std::string reduce : {"fast", "canonical"}) {
    SCOPED_TRACE(reduce);
    fs::remove_all(run());
    ProcessGroup group(
        2,
        command({"checkpoint.every=0", "data.shuffle.enabled=false", "evaluation.every=0",
                 "training.steps=400", "training.batch_tokens=768", "distributed.timeout=60",
                 "distributed.reduce=" + reduce, "distributed.shards=6"}),
        [&](int rank) {
          return rank == 0 ? Words{}
                           : Words{"data.root=" + own.string(),
                                   "data.cache=" + (folder_ / "cache1").string()};
        });
    EXPECT_EQ(group.wait(), std::vector<int>(2, 65)) << group.errors();
    EXPECT_THAT(group[1].errors(), HasSubstr("zzz.txt: record 0"));
    EXPECT_THAT(group[0].errors(), AllOf(HasSubstr("ERROR 65: rank 1 ("), HasSubstr("zzz.txt")));
    const auto steps = static_cast<int64_t>(metric_rows(run(), "step").size());
    ASSERT_GT(steps, 3);
    EXPECT_EQ(checkpoint_steps(run()), std::vector<int64_t>{steps}) << group.errors();
  }
}

}  // namespace
}  // namespace polysketch::test
