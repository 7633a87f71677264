// SPDX-License-Identifier: Apache-2.0
// Checkpoints that several processes wrote, and disks that are full, as the program meets them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "acceptance/workplace.hpp"
#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/peers_fixture.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// The same checkpoint as `world` processes write it, in a run folder of its own.
void rewrite(const CheckpointStore::Loaded& from, const fs::path& run, int64_t world) {
  std::vector<TensorGroup> groups;
  std::vector<std::string> storage;
  storage.reserve(10'000);
  for (const std::string& name : groups_of(from.manifest.files)) {
    const TensorSet set(from.directory, from.manifest.files, name);
    groups.push_back({name, {}, {{"format", "pt"}}});
    for (const TensorInfo& tensor : set.tensors()) {
      storage.emplace_back(tensor.bytes, '\0');
      set.read(tensor, storage.back().data());
      groups.back().tensors.push_back(
          {tensor.name, tensor.type, tensor.shape, storage.back().data()});
    }
  }
  expect_all_ok(run_threads(world, [&](const Peers& peers) {
    CheckpointStore store(run, {}, peers);
    store.save(from.step, groups, from.manifest.state);
  }));
}

/// What three processes saved is continued, evaluated and shown by one, and nothing differs from
/// what one process saved.
TEST(SeveralWriters, TheirCheckpointServesAsAnyOther) {
  const Words settings{"training.steps=10", "checkpoint.every=5", "evaluation.every=0"};
  workplace().train("whole", settings);
  const fs::path whole = workplace().run("whole"), run = workplace().run("of_three");
  rewrite(CheckpointStore(whole, {}).verify(checkpoint_path(whole, 5)), run, 3);
  ASSERT_TRUE(fs::exists(checkpoint_path(run, 5) / "model-00003-of-00003.safetensors"));

  const ProcessResult resumed = workplace().train("of_three", settings);
  EXPECT_THAT(resumed.err, HasSubstr("continuing from"));
  EXPECT_EQ(metric_rows(run, "step").size(), 5U);
  for (const char* name : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_TRUE(read_text(checkpoint_path(run, 10) / name) ==
                read_text(checkpoint_path(whole, 10) / name))
        << name << " differs";

  const auto evaluate = [&](const fs::path& folder) {
    const ProcessResult result =
        polysketch({"evaluate", "perplexity", checkpoint_path(folder, 5).string(), "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return Row::parse(result.out).at("nats_per_token");
  };
  EXPECT_EQ(evaluate(run), evaluate(whole));

  const Row shown = Row::parse(
      polysketch({"checkpoint", "inspect", checkpoint_path(run, 5).string(), "--json"}).out);
  const Row as_one = Row::parse(
      polysketch({"checkpoint", "inspect", checkpoint_path(whole, 5).string(), "--json"}).out);
  EXPECT_EQ(shown.at("writers"), 3);
  EXPECT_EQ(as_one.at("writers"), 1);
  for (size_t group = 0; group < 2; ++group) {
    EXPECT_EQ(shown["groups"][group]["files"], 3);
    for (const char* key : {"name", "tensors", "bytes"})
      EXPECT_EQ(shown["groups"][group][key], as_one["groups"][group][key]);
  }
  EXPECT_THAT(polysketch({"checkpoint", "inspect", checkpoint_path(run, 5).string()}).out,
              AllOf(HasSubstr("step 5, written by 3 processes"), HasSubstr("tensors in 3 files")));
  EXPECT_EQ(polysketch({"checkpoint", "verify", run.string()}).exit_code, 0);
}

/// The command in a shell for which `folder` is a file system of `kib` KiB in memory; what stands
/// there at the end is kept in `folder`.after.
ProcessResult on_small_disk(const fs::path& folder, int kib, const Words& command) {
  fs::create_directories(folder);
  std::string line =
      fmt::format("mount -t tmpfs -o size={}k none '{}' || exit 99; ", kib, folder.string());
  for (const std::string& word : command) line += "'" + word + "' ";
  line += fmt::format("; code=$?; cp -r '{0}' '{0}.after'; exit $code", folder.string());
  return run_process({"unshare", "-rm", "sh", "-c", line});
}

/// Fault 7: the disk has room for one checkpoint and a half. The first failure is a warning and
/// training goes on; the second ends the run, and what was saved before stands.
TEST(FullDisk, OneFailedSaveIsAWarningTwoEndTheRun) {
  const Words settings{"training.steps=20", "checkpoint.every=5", "evaluation.every=0",
                       "logging.tensorboard=false"};
  workplace().train("roomy", settings);
  uintmax_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(checkpoint_path(workplace().run("roomy"), 5)))
    bytes += entry.file_size();
  const fs::path run = workplace().run("full");
  Words command{program().string()};
  for (const std::string& word : workplace().train_command("full", settings))
    command.push_back(word);
  const ProcessResult result = on_small_disk(run, static_cast<int>(bytes * 3 / 2 / 1024), command);
  if (result.exit_code == 99 || result.err.find("unshare") != std::string::npos)
    GTEST_SKIP() << "no small disk here: " << result.err;
  EXPECT_EQ(result.exit_code, 74) << result.err;
  EXPECT_THAT(
      result.err,
      AllOf(HasSubstr("step 10: not saved: "), HasSubstr("KiB needed"), HasSubstr("KiB free"),
            HasSubstr("ERROR 74: step 15: the second save in a row has failed")));
  const fs::path after = run.string() + ".after";
  EXPECT_EQ(metric_rows(after, "step").size(), 15U) << "training went on after the first failure";
  EXPECT_EQ(checkpoint_steps(after), std::vector<int64_t>{5});
  EXPECT_EQ(CheckpointStore(after, {}).newest_valid()->step, 5);
}

/// At the end there is no later save to wait for: it is tried again at once, and failing twice ends
/// the run with 74, not with success. (The disk has room for the first checkpoint.)
TEST(FullDisk, TheLastSaveDoesNotFailSilently) {
  const Words settings{"training.steps=2", "schedule.warmup=1", "checkpoint.every=1",
                       "evaluation.every=0", "logging.tensorboard=false"};
  Words command{program().string()};
  for (const std::string& word : workplace().train_command("full_at_end", settings))
    command.push_back(word);
  const ProcessResult result = on_small_disk(workplace().run("full_at_end"), 700, command);
  if (result.exit_code == 99 || result.err.find("unshare") != std::string::npos)
    GTEST_SKIP() << "no small disk here: " << result.err;
  EXPECT_EQ(result.exit_code, 74) << result.err;
  EXPECT_THAT(result.err, HasSubstr("ERROR 74: step 2: the second save in a row has failed"));
}

/// A disk that cannot hold one checkpoint shows before the first step, when nothing is lost.
TEST(FullDisk, WithoutRoomForACheckpointTheRunDoesNotBegin) {
  Words command{program().string()};
  for (const std::string& word :
       workplace().train_command("no_room", {"logging.tensorboard=false"}))
    command.push_back(word);
  const ProcessResult result = on_small_disk(workplace().run("no_room"), 100, command);
  if (result.exit_code == 99 || result.err.find("unshare") != std::string::npos)
    GTEST_SKIP() << "no small disk here: " << result.err;
  EXPECT_EQ(result.exit_code, 74) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("no space for a checkpoint: "), HasSubstr("KiB needed"),
                                Not(HasSubstr("step  1"))));
}

}  // namespace
}  // namespace polysketch::test
