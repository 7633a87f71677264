// SPDX-License-Identifier: Apache-2.0
// Checkpoints of runs with several processes: saved together, loaded at any number, and what goes
// wrong in between.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint_fixture.hpp"
#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/group_fixture.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/peers_fixture.hpp"
#include "checkpoint/shared_folder.hpp"
#include "checkpoint/verification.hpp"
#include "helpers/test_helpers.hpp"
#include "support/build_info.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::before_exchange;
using test::Ending;
using test::expect_all_ok;
using test::is_whole_group;
using test::keep;
using test::run_threads;
using test::save_group;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

void flip_last_bit(const fs::path& path) {
  std::string content = test::read_text(path);
  content.back() = static_cast<char>(content.back() ^ 1);
  test::write_text(path, content);
}

/// Saves these steps by `world` processes.
void save_steps(const fs::path& run, int64_t world, const std::vector<int64_t>& steps) {
  expect_all_ok(run_threads(world, [&](const Peers& peers) {
    CheckpointStore store(run, keep(9), peers);
    for (const int64_t step : steps) save_group(store, step);
  }));
}

/// The step that all of `world` processes load, whole; nothing if they find none.
std::optional<int64_t> load(const fs::path& run, int64_t world) {
  std::vector<std::optional<CheckpointStore::Loaded>> loaded(static_cast<size_t>(world));
  expect_all_ok(run_threads(world, [&](const Peers& peers) {
    loaded[static_cast<size_t>(peers.rank)] = CheckpointStore(run, keep(9), peers).newest_valid();
  }));
  for (const auto& one : loaded) {
    EXPECT_EQ(one.has_value(), loaded[0].has_value());
    if (!one || !loaded[0]) continue;
    EXPECT_EQ(one->step, loaded[0]->step);
    EXPECT_TRUE(is_whole_group(*one));
  }
  return loaded[0] ? std::optional(loaded[0]->step) : std::nullopt;
}

void expect_all_failed(const std::vector<Ending>& endings, ExitCode code,
                       const testing::Matcher<std::string>& text) {
  for (size_t rank = 0; rank < endings.size(); ++rank) {
    EXPECT_FALSE(endings[rank].ok) << "rank " << rank;
    EXPECT_EQ(endings[rank].code, static_cast<int>(code))
        << "rank " << rank << ": " << endings[rank].error;
    EXPECT_THAT(endings[rank].error, text);
    EXPECT_EQ(endings[rank].error, endings[0].error) << "all must say the same";
  }
}

TEST(SeveralWriters, WhatIsSavedAtAnyNumberLoadsAtAnyNumber) {
  for (const int64_t writers : {1, 2, 3}) {
    const TemporaryFolder run;
    save_steps(run.path(), writers, {10, 20});
    for (const int64_t readers : {1, 2, 3, 5})
      EXPECT_EQ(load(run.path(), readers), 20) << writers << " writers, " << readers << " readers";
    EXPECT_EQ(read_manifest(run / "checkpoints" / "step-00000020").writers, writers);
  }
}

TEST(SeveralWriters, FilesHaveTheUsualNames) {
  const TemporaryFolder one, three;
  save_steps(one.path(), 1, {10});
  EXPECT_THAT(names_in(one / "checkpoints" / "step-00000010"),
              ElementsAre("manifest.json", "model.safetensors", "optimizer.safetensors"));
  save_steps(three.path(), 3, {10});
  const std::vector<std::string> tensors{
      "model-00001-of-00003.safetensors",     "model-00002-of-00003.safetensors",
      "model-00003-of-00003.safetensors",     "model.safetensors.index.json",
      "optimizer-00001-of-00003.safetensors", "optimizer-00002-of-00003.safetensors",
      "optimizer-00003-of-00003.safetensors", "optimizer.safetensors.index.json"};
  std::vector<std::string> listed, all = tensors;
  for (const FileRecord& file : read_manifest(three / "checkpoints" / "step-00000010").files)
    listed.push_back(file.name);
  EXPECT_EQ(listed, tensors);
  all.insert(all.begin(), "manifest.json");
  EXPECT_EQ(names_in(three / "checkpoints" / "step-00000010"), all)
      << "and nothing else, marks and temporary files included";
}

TEST(SeveralWriters, AllLearnHowManyBytesWereWritten) {
  const TemporaryFolder run;
  std::vector<uint64_t> bytes(3);
  expect_all_ok(run_threads(3, [&](const Peers& peers) {
    CheckpointStore store(run.path(), keep(2), peers);
    const test::GroupData data(10);
    bytes[static_cast<size_t>(peers.rank)] = store.save(10, data.groups(), data.state());
  }));
  uint64_t want = 0;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints" / "step-00000010")) {
    if (entry.path().extension() == ".safetensors") want += entry.file_size();
  }
  EXPECT_THAT(bytes, ElementsAre(want, want, want));
}

/// Data of the tensors that another process writes need not be there.
TEST(SeveralWriters, EachNeedsItsOwnTensorsOnly) {
  const TemporaryFolder run;
  expect_all_ok(run_threads(3, [&](const Peers& peers) {
    CheckpointStore store(run.path(), keep(2), peers);
    const test::GroupData data(10);
    std::vector<TensorGroup> groups = data.groups();
    for (TensorGroup& group : groups) {
      const auto owners = share_out(group.tensors, peers.world);
      for (size_t i = 0; i < owners.size(); ++i) {
        if (owners[i] != peers.rank) group.tensors[i].data = nullptr;
      }
    }
    store.save(10, groups, data.state());
  }));
  EXPECT_EQ(load(run.path(), 2), 10);
}

TEST(SeveralWriters, AManifestWithoutTheNumberOfWritersIsOfOne) {
  const TemporaryFolder run;
  save_steps(run.path(), 1, {10});
  const fs::path path = run / "checkpoints" / "step-00000010" / "manifest.json";
  nlohmann::json document = nlohmann::json::parse(test::read_text(path));
  document.erase("sha256");
  document.erase("writers");
  document["sha256"] = sha256_hex(document.dump());
  test::write_text(path, document.dump());
  for (const int64_t readers : {1, 2}) EXPECT_EQ(load(run.path(), readers), 10);
  EXPECT_EQ(read_manifest(path.parent_path()).writers, 1);
}

/// A process whose save fails aborts it everywhere, and the next one succeeds.
TEST(SeveralWriters, OneThatFailsAbortsTheSaveEverywhere) {
  for (const int64_t failing : {0, 1, 2}) {
    const TemporaryFolder run;
    save_steps(run.path(), 3, {10});
    std::vector<bool> saved(3);
    const auto endings = run_threads(3, [&](const Peers& plain) {
      // A folder in the place of its file, made when the temporary folder is there: the rename onto
      // it fails.
      Peers hindered = plain;
      hindered.all_gather = [&, count = 0](const std::string& text) mutable {
        auto texts = plain.all_gather(text);
        if (count++ == 0 && plain.rank == failing) {
          for (const std::string& name : names_in(run / "checkpoints")) {
            if (name.find(".tmp-") != std::string::npos)
              fs::create_directories(run / "checkpoints" / name /
                                     fmt::format("model-{:05d}-of-00003.safetensors", failing + 1));
          }
        }
        return texts;
      };
      CheckpointStore store(run.path(), keep(9), hindered);
      save_group(store, 20);
      saved[static_cast<size_t>(plain.rank)] = true;
    });
    expect_all_failed(endings, ExitCode::cannot_create,
                      AllOf(HasSubstr(fmt::format("rank {} on host {}: ", failing, host_name())),
                            HasSubstr(fmt::format("model-{:05d}-of-00003", failing + 1))));
    EXPECT_THAT(saved, ElementsAre(false, false, false));
    EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000010"))
        << "the temporary folder is removed";
    EXPECT_EQ(load(run.path(), 3), 10);
    save_steps(run.path(), 3, {20});
    EXPECT_EQ(load(run.path(), 2), 20);
  }
}

/// A process that dies: the others are told by the exchange, whose error goes through, and what is
/// left loads.
TEST(SeveralWriters, OneThatDiesLeavesLoadableCheckpoints) {
  struct Death : std::runtime_error {
    using std::runtime_error::runtime_error;
  };
  for (const int64_t dying : {0, 1, 2}) {
    for (const int exchange : {0, 1, 2}) {
      const TemporaryFolder run;
      save_steps(run.path(), 3, {10});
      const auto endings = run_threads(3, [&](const Peers& plain) {
        Peers peers = plain;
        if (plain.rank == dying)
          peers = before_exchange(plain, exchange, [] { throw Death("killed"); });
        CheckpointStore store(run.path(), keep(9), peers);
        save_group(store, 20);
      });
      for (int64_t rank = 0; rank < 3; ++rank) {
        const Ending& ending = endings[static_cast<size_t>(rank)];
        EXPECT_FALSE(ending.ok);
        EXPECT_EQ(ending.code, rank == dying ? 0 : static_cast<int>(ExitCode::distributed))
            << ending.error;
      }
      const RunLock lock(run.path());
      const auto step = load(run.path(), 3);
      EXPECT_EQ(step,
                exchange == 2 && (dying != 0 || fs::exists(run / "checkpoints" / "step-00000020"))
                    ? 20
                    : 10)
          << "rank " << dying << " dies before exchange " << exchange;
      for (const std::string& name : names_in(run / "checkpoints"))
        EXPECT_EQ(name.find(".tmp-"), std::string::npos) << name;
    }
  }
}

/// Fault 12: the file of one process is bad, those of the others are good: all fall back to the
/// same older step.
TEST(SeveralWriters, OneBadFileMakesAllFallBack) {
  const auto files = [] {
    const TemporaryFolder run;
    save_steps(run.path(), 3, {10});
    return read_manifest(run / "checkpoints" / "step-00000010").files;
  }();
  for (size_t bad = 0; bad < files.size(); ++bad) {
    for (const size_t readers : {1, 2, 3}) {
      const TemporaryFolder run;
      save_steps(run.path(), 3, {10, 20});
      flip_last_bit(run / "checkpoints" / "step-00000020" / files[bad].name);
      testing::internal::CaptureStderr();
      const auto step = load(run.path(), static_cast<int64_t>(readers));
      const std::string warning = testing::internal::GetCapturedStderr();
      EXPECT_EQ(step, 10);
      EXPECT_THAT(warning, AllOf(HasSubstr(files[bad].name), HasSubstr("step-00000020"),
                                 HasSubstr("using step-00000010")));
      EXPECT_EQ(warning.find("using"), warning.rfind("using")) << "said once: " << warning;
      if (readers == 1) continue;
      EXPECT_THAT(warning, HasSubstr(fmt::format("rank {} on host", bad % readers)))
          << "each verifies its share";
    }
  }
}

TEST(SeveralWriters, FilesThatAreMissingOrCutMakeAllFallBack) {
  const TemporaryFolder run;
  save_steps(run.path(), 3, {10, 20, 30, 40});
  const fs::path root = run / "checkpoints";
  fs::remove(root / "step-00000040" / "optimizer-00002-of-00003.safetensors");
  fs::resize_file(root / "step-00000030" / "model-00003-of-00003.safetensors", 100);
  fs::remove(root / "step-00000020" / "manifest.json");
  testing::internal::CaptureStderr();
  EXPECT_EQ(load(run.path(), 3), 10);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("optimizer-00002-of-00003.safetensors is missing"),
                    HasSubstr("model-00003-of-00003.safetensors has 100 bytes, want"),
                    HasSubstr("never completed")));
}

TEST(SeveralWriters, AllRefuseWhenNoneIsGood) {
  const TemporaryFolder run;
  save_steps(run.path(), 2, {10, 20});
  for (const char* step : {"step-00000010", "step-00000020"})
    flip_last_bit(run / "checkpoints" / step / "model-00002-of-00002.safetensors");
  expect_all_failed(
      run_threads(
          3,
          [&](const Peers& peers) { CheckpointStore(run.path(), keep(9), peers).newest_valid(); }),
      ExitCode::no_checkpoint,
      AllOf(HasSubstr("none of the 2"), HasSubstr("step-00000010"), HasSubstr("step-00000020")));
}

TEST(SeveralWriters, ANewerFormatIsNoReasonToFallBack) {
  const TemporaryFolder run;
  save_steps(run.path(), 2, {10, 20});
  const fs::path path = run / "checkpoints" / "step-00000020" / "manifest.json";
  nlohmann::json document = nlohmann::json::parse(test::read_text(path));
  document.erase("sha256");
  document["format_version"] = 7;
  document["sha256"] = sha256_hex(document.dump());
  test::write_text(path, document.dump());
  expect_all_failed(run_threads(3,
                                [&](const Peers& peers) {
                                  CheckpointStore(run.path(), keep(9), peers).newest_valid();
                                }),
                    ExitCode::no_checkpoint, HasSubstr("format version 7"));
}

TEST(SeveralWriters, FindNothingInAnEmptyRun) {
  const TemporaryFolder run;
  EXPECT_FALSE(load(run.path(), 3).has_value());
}

TEST(SeveralWriters, SavingTheSameStepAgainAndRetention) {
  const TemporaryFolder run;
  expect_all_ok(run_threads(2, [&](const Peers& peers) {
    CheckpointStore store(run.path(), keep(2), peers);
    for (const int64_t step : {10, 20, 30, 30}) save_group(store, step);
  }));
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000020", "step-00000030"));
  EXPECT_EQ(load(run.path(), 3), 30);
}

TEST(SeveralWriters, ProcessesThatSaveDifferentStepsAreStopped) {
  const TemporaryFolder run;
  expect_all_failed(run_threads(2,
                                [&](const Peers& peers) {
                                  CheckpointStore store(run.path(), keep(2), peers);
                                  save_group(store, 10 + peers.rank);
                                }),
                    ExitCode::internal, HasSubstr("rank 1"));
}

/// Each has a folder of its own, as on machines whose run folder is a local disk.
TEST(SharedFolder, FoldersThatAreNotSharedAreRefusedBeforeAnythingIsWritten) {
  const TemporaryFolder one, other;
  const auto folder = [&](const Peers& peers) {
    return peers.rank == 2 ? other.path() : one.path();
  };
  const auto names_both =
      AllOf(HasSubstr("rank 2 on host " + host_name()), HasSubstr(other.path().string()),
            HasSubstr("rank 0 (" + one.path().string()), HasSubstr("on host " + host_name() + ")"),
            HasSubstr("all processes share"));
  expect_all_failed(
      run_threads(3, [&](const Peers& peers) { const RunLock lock(folder(peers), peers); }),
      ExitCode::cannot_create, names_both);
  EXPECT_THAT(names_in(one.path()), IsEmpty());
  const RunLock free_again(one.path());

  expect_all_failed(run_threads(3,
                                [&](const Peers& peers) {
                                  CheckpointStore store(folder(peers), keep(2), peers);
                                  save_group(store, 10);
                                }),
                    ExitCode::cannot_create, names_both);
  EXPECT_TRUE(names_in(one / "checkpoints").empty());
  EXPECT_TRUE(names_in(other.path()).empty());
}

/// A stale folder of the same name does not pass for the shared one.
TEST(SharedFolder, AFolderOfTheSameNameIsNotEnough) {
  const TemporaryFolder one, other;
  const auto endings = run_threads(2, [&](const Peers& plain) {
    Peers peers = plain;
    peers.all_gather = [&](const std::string& text) {
      auto texts = plain.all_gather(text);
      if (plain.rank == 1 && fs::exists(one / "checkpoints")) {
        for (const std::string& name : names_in(one / "checkpoints"))
          fs::create_directories(other / "checkpoints" / name);
      }
      return texts;
    };
    CheckpointStore store(plain.rank == 1 ? other.path() : one.path(), keep(2), peers);
    save_group(store, 10);
  });
  expect_all_failed(endings, ExitCode::cannot_create, HasSubstr("is not the folder of rank 0"));
}

TEST(SharedFolder, WaitsForAFileSystemThatShowsThingsLate) {
  const TemporaryFolder run, elsewhere;
  const fs::path late = elsewhere / "late";
  expect_all_ok(run_threads(2, [&](const Peers& plain) {
    Peers peers = plain;
    peers.patience_seconds = 60;
    std::thread later;
    if (plain.rank == 1) {
      later = std::thread([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        fs::create_directory_symlink(run.path(), late);
      });
    }
    check_shared(plain.rank == 1 ? late : run.path(), peers);
    if (later.joinable()) later.join();
  }));
  EXPECT_THAT(names_in(run.path()), testing::IsEmpty()) << "the mark is gone";
}

TEST(SharedFolder, RemovesTheMarkOfOneThatDied) {
  const TemporaryFolder run;
  test::write_text(run / ".shared-0123456789abcdef0123456789abcdef", "");
  test::write_text(run / ".shared-notes", "");
  expect_all_ok(run_threads(2, [&](const Peers& peers) { check_shared(run.path(), peers); }));
  EXPECT_THAT(names_in(run.path()), ElementsAre(".shared-notes"));
}

TEST(RunLockOfSeveral, RankZeroOwnsTheFolderForAll) {
  const TemporaryFolder run;
  expect_all_ok(run_threads(3, [&](const Peers& peers) {
    const RunLock lock(run.path(), peers);
    together(peers, [] {});  // nobody leaves before all have come
  }));
  const RunLock taken(run.path());
  expect_all_failed(
      run_threads(2, [&](const Peers& peers) { const RunLock lock(run.path(), peers); }),
      ExitCode::cannot_create, AllOf(HasSubstr("rank 0"), HasSubstr("in use by process")));
}

TEST(Exchange, GivesAllTheResultsInOrderOfRank) {
  const auto endings = run_threads(3, [](const Peers& peers) {
    const auto all =
        exchange(peers, [&] { return std::string(1, '\0') + std::to_string(peers.rank); });
    if (all != std::vector<std::string>{{"\0000", 2}, {"\0001", 2}, {"\0002", 2}})
      throw std::runtime_error("wrong results");
  });
  expect_all_ok(endings);
  EXPECT_THAT(exchange({}, [] { return std::string("alone"); }), ElementsAre("alone"));
}

TEST(Exchange, AllThrowTheFirstFailureWithItsRank) {
  const auto failing = [](int64_t from, const std::function<void()>& fail) {
    return run_threads(4, [&, from](const Peers& peers) {
      together(peers, [&] {
        if (peers.rank >= from) fail();
      });
    });
  };
  expect_all_failed(
      failing(2, [] { throw UserError(ExitCode::permission, "two lines\nand a blank"); }),
      ExitCode::permission,
      AllOf(HasSubstr("rank 2 on host " + host_name() + ": two lines\nand a blank"),
            HasSubstr("1 more")));
  expect_all_failed(failing(3, [] { throw std::runtime_error("odd"); }), ExitCode::internal,
                    testing::EndsWith("odd"));
  expect_all_failed(failing(3, [] { throw fs::filesystem_error("disk", std::error_code()); }),
                    ExitCode::io, HasSubstr("disk"));
  EXPECT_THROW(exchange({}, []() -> std::string { throw InternalError("as it is"); }),
               InternalError);
}

}  // namespace
}  // namespace polysketch
