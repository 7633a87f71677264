// SPDX-License-Identifier: Apache-2.0
// The folder of a run: a start that is refused leaves no trace, and nothing is written into a
// folder that is not the run's any more.
#include "checkpoint/run_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "helpers/test_helpers.hpp"
#include "peers_fixture.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;

/// Names and contents of everything below a folder.
std::map<std::string, std::string> everything(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = fs::relative(entry.path(), folder).string();
    all[name] = entry.is_regular_file() ? read_text(entry.path()) : "folder";
  }
  return all;
}

TEST(RunFolder, ARefusedStartLeavesNoNewFolder) {
  const TemporaryFolder place;
  {
    RunFolder folder(place / "runs/deep/a", {});
    EXPECT_FALSE(folder.taken());
    EXPECT_TRUE(everything(place.path()).empty()) << "looking has made something";
    folder.take();
    EXPECT_TRUE(fs::exists(place / "runs/deep/a/lock"));
  }
  EXPECT_TRUE(everything(place.path()).empty());
}

TEST(RunFolder, ARefusedStartLeavesAnExistingFolderAsItWas) {
  const TemporaryFolder place;
  write_text(place / "run/config.yaml", "settings");
  write_text(place / "other/lock", "process 1 on host elsewhere\n");
  const auto before = everything(place.path());
  for (const char* name : {"run", "other"}) {
    RunFolder folder(place / name, {});
    EXPECT_TRUE(folder.taken());
    EXPECT_NE(everything(place.path()), before) << "the owner is not noted";
  }
  EXPECT_EQ(everything(place.path()), before);
}

TEST(RunFolder, WhatOthersPutIntoANewFolderStays) {
  const TemporaryFolder place;
  {
    RunFolder folder(place / "run", {});
    folder.take();
    write_text(place / "run/notes.txt", "mine");
  }
  EXPECT_EQ(read_text(place / "run/notes.txt"), "mine");
}

TEST(RunFolder, AStartThatSucceedsKeepsIt) {
  const TemporaryFolder place;
  {
    RunFolder folder(place / "run", {});
    folder.take();
    folder.keep();
  }
  EXPECT_TRUE(fs::exists(place / "run/lock"));
}

TEST(RunFolder, IsFollowedWhenItIsRenamed) {
  const TemporaryFolder place;
  RunFolder folder(place / "run", {});
  folder.take();
  folder.keep();
  EXPECT_EQ(folder.place(), place / "run");
  fs::rename(place / "run", place / "kept");
  EXPECT_EQ(folder.place(), place / "kept");
  // another run under the old name
  RunFolder other(place / "run", {});
  other.take();
  EXPECT_EQ(folder.place(), place / "kept");
}

TEST(RunFolder, IsGoneWhenItIsRemovedEmptiedOrReplaced) {
  const TemporaryFolder place;
  for (const char* name : {"removed", "emptied", "replaced"}) {
    RunFolder folder(place / name, {});
    folder.take();
    folder.keep();
    if (name == std::string("emptied")) {
      fs::remove(place / name / "lock");
    } else {
      fs::remove_all(place / name);
    }
    EXPECT_EQ(folder.place(), std::nullopt) << name;
    RunFolder other(place / name, {});
    other.take();
    EXPECT_EQ(other.place(), place / name);
    EXPECT_EQ(folder.place(), std::nullopt) << name << ", with another run there";
  }
}

TEST(RunFolder, ALockThatItsMakerTookBackKeepsOthersOut) {
  const TemporaryFolder place;
  fs::create_directories(place / "run");
  for (int i = 0; i < 50; ++i) {
    RunFolder refused(place / "run", {});
  }
  EXPECT_FALSE(fs::exists(place / "run/lock"));
  const RunFolder first(place / "run", {});
  EXPECT_THROW(RunFolder(place / "run", {}), UserError);
}

TEST(RunFolder, OfSeveralProcessesIsOneForAll) {
  const TemporaryFolder place;
  run_threads(3, [&](const Peers& peers) {
    RunFolder folder(place / "run", peers);
    EXPECT_FALSE(folder.taken());
    folder.take();
    EXPECT_EQ(folder.place(), place / "run");
  });
  EXPECT_TRUE(everything(place.path()).empty());
}

TEST(RescueFolder, IsANameThatIsFree) {
  const TemporaryFolder place;
  EXPECT_EQ(rescue_folder(place / "run/"), place / "run.rescued");
  fs::create_directory(place / "run.rescued");
  EXPECT_EQ(rescue_folder(place / "run"), place / "run.rescued-2");
}

}  // namespace
}  // namespace polysketch::test
