// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/checkpoint_store.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_fixture.hpp"
#include "checkpoint/leftovers.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/verification.hpp"
#include "helpers/test_helpers.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::is_whole;
using test::keep;
using test::read_text;
using test::save_step;
using test::TemporaryFolder;
using test::write_text;
using testing::ElementsAre;
using testing::HasSubstr;

void flip_bit(const fs::path& path, size_t at, int bit = 0) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(byte ^ (1 << bit)));
  ASSERT_TRUE(file.good()) << path;
}

std::string error_of(const std::function<void()>& action, ExitCode code) {
  try {
    action();
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(CheckpointStore, IsEmptyAtFirst) {
  const TemporaryFolder run;
  const CheckpointStore store(run.path(), keep(3));
  EXPECT_TRUE(store.steps().empty());
  EXPECT_FALSE(store.newest_valid().has_value());
}

TEST(CheckpointStore, LoadsTheNewest) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(3));
  for (const int64_t step : {9, 10, 100}) save_step(store, step);
  const auto loaded = store.newest_valid();
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->step, 100);
  EXPECT_EQ(loaded->manifest.state.at("text"), "\xC3\xA9\n");
  EXPECT_EQ(loaded->directory, run / "checkpoints" / "step-00000100");
  EXPECT_TRUE(is_whole(*loaded));
}

TEST(CheckpointStore, OrdersByStepAndNotByTime) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(5));
  for (const int64_t step : {200, 100}) save_step(store, step);
  EXPECT_EQ(store.newest_valid()->step, 200);
}

TEST(CheckpointStore, AnUncommittedSaveLeavesNothing) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(3));
  {
    CheckpointStore::Save save(store, 5);
    write_text(save.directory() / "model.safetensors", "half");
    EXPECT_THAT(save.directory().filename().string(),
                testing::MatchesRegex("step-00000005\\.tmp-[0-9]+-[0-9]+"));
    EXPECT_TRUE(store.steps().empty());
  }
  EXPECT_TRUE(names_in(run / "checkpoints").empty());
}

TEST(CheckpointStore, RefusesToCommitAFileThatIsNotThere) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(3));
  CheckpointStore::Save save(store, 5);
  EXPECT_THROW(save.commit({FileRecord{"model.safetensors", 10, std::string(64, '0'), {}}},
                           nlohmann::json::object()),
               InternalError);
}

TEST(CheckpointStore, KeepsTheLastAndTheMultiples) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(2, 40));
  for (int64_t step = 10; step <= 120; step += 10) save_step(store, step);
  EXPECT_THAT(store.steps(), ElementsAre(40, 80, 110, 120));
  EXPECT_EQ(names_in(run / "checkpoints").size(), 4U) << "nothing of the deleted ones remains";
}

TEST(CheckpointStore, NeverDeletesTheOneItLoadedFrom) {
  const TemporaryFolder run;
  {
    CheckpointStore store(run.path(), keep(1));
    save_step(store, 10);
  }
  CheckpointStore store(run.path(), keep(1));
  ASSERT_EQ(store.newest_valid()->step, 10);
  for (const int64_t step : {20, 30, 40}) save_step(store, step);
  EXPECT_THAT(store.steps(), ElementsAre(10, 40));
}

TEST(CheckpointStore, KeepsTheBestUntilAnotherIsBetter) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(1));
  const auto save = [&](int64_t step, int64_t best) {
    store.set_best(best);
    save_step(store, step);
  };
  save(10, -1);
  save(20, 20);
  save(30, 20);
  save(40, 20);
  EXPECT_THAT(store.steps(), ElementsAre(20, 40));
  save(50, 50);
  EXPECT_THAT(store.steps(), ElementsAre(50)) << "the former best goes like any other";
  save(60, 55);  // a step at which nothing was saved
  EXPECT_THAT(store.steps(), ElementsAre(60));
}

TEST(CheckpointStore, KeepsNoBestWhereItIsNotAskedTo) {
  const TemporaryFolder run;
  CheckpointConfig config = keep(1);
  config.keep_best = false;
  CheckpointStore store(run.path(), config);
  store.set_best(20);
  for (const int64_t step : {20, 30, 40}) save_step(store, step);
  EXPECT_THAT(store.steps(), ElementsAre(40));
}

TEST(CheckpointStore, FallsBackPastDamagedOnesAndLaterReplacesThem) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(2));
  for (const int64_t step : {10, 20, 30}) save_step(store, step);
  flip_bit(store.path_of(30) / "model.safetensors", 600);
  testing::internal::CaptureStderr();
  const auto loaded = store.newest_valid();
  const std::string warning = testing::internal::GetCapturedStderr();
  ASSERT_EQ(loaded->step, 20);
  EXPECT_TRUE(is_whole(*loaded));
  EXPECT_THAT(warning, testing::AllOf(HasSubstr("step-00000030"), HasSubstr("model.safetensors"),
                                      HasSubstr("CRC-32C"), HasSubstr("using step-00000020")));

  save_step(store, 25);
  EXPECT_THAT(store.steps(), ElementsAre(20, 25, 30))
      << "the damaged newer one does not count as one of the two kept";
  save_step(store, 30);
  EXPECT_THAT(store.steps(), ElementsAre(20, 25, 30));
  EXPECT_EQ(store.newest_valid()->step, 30);
  EXPECT_THAT(names_in(run / "checkpoints"),
              ElementsAre("step-00000020", "step-00000025", "step-00000030"));
}

// Neither are there too few descriptors for ever, nor may an older checkpoint be taken for it.
TEST(CheckpointStore, TooFewDescriptorsSayNothingOfACheckpoint) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer asks by a pipe whether memory can be read: it needs descriptors";
#endif
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(3));
  // Large enough that two threads have their files open at once.
  const std::vector<float> values(size_t{1} << 20, 0.5F);
  for (const int64_t step : {1, 2}) {
    CheckpointStore::Save save(store, step);
    std::vector<FileRecord> files;
    for (const char* name : {"model.safetensors", "optimizer.safetensors"})
      files.push_back(write_safetensors(
          save.directory() / name,
          {{"all", DataType::f32, {static_cast<int64_t>(values.size())}, values.data()}}));
    save.commit(std::move(files), {{"step", step}});
  }
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = ::dup(STDERR_FILENO);  // the first free one
  ASSERT_GE(next, 0);
  ::close(next);
  int refused = 0;
  for (int free = 0; free <= 4; ++free) {
    const rlimit limited{static_cast<rlim_t>(next + free), before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limited), 0);
    std::optional<int64_t> step;
    std::string said;
    try {
      step = store.newest_valid()->step;
    } catch (const UserError& error) {
      said = fmt::format("{} {}", static_cast<int>(error.code()), error.what());
    }
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (step) {
      EXPECT_EQ(*step, 2) << free;
    } else {
      ++refused;
      EXPECT_THAT(said, testing::AllOf(testing::StartsWith("74 "), HasSubstr("ulimit -n"))) << free;
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 5);
}

TEST(CheckpointStore, NamesTheDamagedTensor) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(2));
  save_step(store, 10);
  flip_bit(store.path_of(10) / "optimizer.safetensors",
           fs::file_size(store.path_of(10) / "optimizer.safetensors") - 1);
  EXPECT_THAT(error_of([&] { store.verify(store.path_of(10)); }, ExitCode::no_checkpoint),
              testing::AllOf(HasSubstr("optimizer"), HasSubstr("'second'")));
}

TEST(CheckpointStore, TellsHowMuchOfATruncatedFileIsLeft) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(2));
  save_step(store, 10);
  const fs::path file = store.path_of(10) / "model.safetensors";
  const auto bytes = fs::file_size(file);
  fs::resize_file(file, bytes - 7);
  EXPECT_THAT(error_of([&] { store.verify(store.path_of(10)); }, ExitCode::no_checkpoint),
              HasSubstr(fmt::format("has {} bytes, want {}", bytes - 7, bytes)));
}

TEST(CheckpointStore, ListsTheCausesWhenAllAreBad) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(9));
  for (const int64_t step : {10, 20, 30, 40, 50}) save_step(store, step);
  fs::remove(store.path_of(10) / "manifest.json");
  fs::resize_file(store.path_of(20) / "model.safetensors", 5);
  fs::remove(store.path_of(30) / "optimizer.safetensors");
  flip_bit(store.path_of(40) / "model.safetensors", 700);
  fs::remove_all(store.path_of(50));
  fs::create_directory_symlink(store.path_of(40), store.path_of(50));
  const std::string text = error_of([&] { store.newest_valid(); }, ExitCode::no_checkpoint);
  EXPECT_THAT(
      text, testing::AllOf(HasSubstr("none of the 5"), HasSubstr("step-00000010: has no manifest"),
                           HasSubstr("step-00000020: model.safetensors has 5 bytes"),
                           HasSubstr("step-00000030: optimizer.safetensors is missing"),
                           HasSubstr("step-00000040"),
                           HasSubstr("step-00000050: manifest.json is that of step 40")));
}

TEST(CheckpointStore, DetectsEveryFlippedBitOfItsFiles) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(2));
  save_step(store, 10);
  Philox random(3, RandomPurpose::test);
  for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
    const fs::path file = store.path_of(10) / name;
    const uint64_t bytes = fs::file_size(file);
    for (int i = 0; i < 500; ++i) {
      const auto at = static_cast<size_t>(random.bounded(bytes));
      const auto bit = static_cast<int>(random.bounded(8));
      flip_bit(file, at, bit);
      EXPECT_THROW(store.verify(store.path_of(10)), UserError) << name << " byte " << at;
      flip_bit(file, at, bit);
    }
  }
  EXPECT_TRUE(is_whole(store.verify(store.path_of(10))));
}

TEST(CheckpointStore, AManifestWithAFlippedBitIsRefusedOrSaysTheSame) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(2));
  save_step(store, 10);
  const fs::path file = store.path_of(10) / "manifest.json";
  const std::string good = read_text(file);
  const Manifest want = read_manifest(store.path_of(10));
  int accepted = 0;
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = good;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      try {
        const Manifest got = parse_manifest(damaged, file);
        ++accepted;
        EXPECT_EQ(manifest_text(got), manifest_text(want));
      } catch (const std::invalid_argument&) {
      }
    }
  }
  EXPECT_LT(accepted, 1000) << "only changes of white space may pass";
  for (size_t size = 0; size + 1 < good.size(); ++size)
    EXPECT_THROW(parse_manifest(good.substr(0, size), file), std::invalid_argument) << size;
}

/// A manifest with one value replaced and a hash that fits, as a program with a defect or an ill
/// will would write it.
std::string forged(const Manifest& manifest, const std::function<void(nlohmann::json&)>& change) {
  nlohmann::json document = nlohmann::json::parse(manifest_text(manifest));
  document.erase("sha256");
  change(document);
  document["sha256"] = sha256_hex(document.dump());
  return document.dump();
}

TEST(CheckpointStore, RefusesForgedManifests) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(2));
  save_step(store, 10);
  const Manifest good = read_manifest(store.path_of(10));
  const auto defect = [&](const std::function<void(nlohmann::json&)>& change) {
    try {
      parse_manifest(forged(good, change), "manifest.json");
      return std::string("accepted");
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
  };
  EXPECT_EQ(defect([](auto&) {}), "accepted");
  for (const char* name :
       {"../model.safetensors", "/etc/passwd", "a/b", "", ".", "..", ".hidden"}) {
    EXPECT_THAT(defect([&](auto& document) { document["files"][0]["name"] = name; }),
                HasSubstr("outside its folder"))
        << name;
  }
  EXPECT_THAT(defect([](auto& document) { document["files"][1] = document["files"][0]; }),
              HasSubstr("twice"));
  EXPECT_THAT(defect([](auto& document) { document["step"] = -1; }), HasSubstr("step"));
  EXPECT_THAT(defect([](auto& document) { document["step"] = "10"; }), HasSubstr("step"));
  EXPECT_THAT(defect([](auto& document) { document.erase("files"); }), HasSubstr("files"));
  EXPECT_THAT(defect([](auto& document) { document["files"] = 3; }), HasSubstr("files"));
  EXPECT_THAT(defect([](auto& document) { document["state"] = nullptr; }), HasSubstr("state"));
  EXPECT_THAT(defect([](auto& document) { document["format_version"] = 0; }),
              HasSubstr("version 0"));
  EXPECT_THAT(
      defect([](auto& document) { document["files"][0]["crc32c"]["first"] = uint64_t{1} << 32; }),
      HasSubstr("CRC"));
}

TEST(CheckpointStore, RefusesRepeatedKeysAndMoreThanOneDocument) {
  const std::string text = manifest_text(Manifest{1, {}, {{"a", 1}}});
  EXPECT_EQ(parse_manifest(text, "m").step, 1);
  std::string repeated = text;
  repeated.insert(1, "\"step\":1,");
  EXPECT_THROW(parse_manifest(repeated, "m"), std::invalid_argument);
  EXPECT_THROW(parse_manifest(text + "{}", "m"), std::invalid_argument);
  EXPECT_THROW(parse_manifest(text + std::string(1, '\0') + "}", "m"), std::invalid_argument);
  EXPECT_THROW(parse_manifest("\xEF\xBB\xBF" + text, "m"), std::invalid_argument);
  EXPECT_THROW(parse_manifest("{\"a\":" + std::string(100'000, '[') + "}", "m"),
               std::invalid_argument);
}

TEST(CheckpointStore, SaysBothVersionsOfANewerFormatAndDoesNotFallBack) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(3));
  for (const int64_t step : {10, 20}) save_step(store, step);
  const fs::path manifest = store.path_of(20) / "manifest.json";
  write_text(manifest, forged(read_manifest(store.path_of(20)),
                              [](auto& document) { document["format_version"] = 7; }));
  const std::string text = error_of([&] { store.newest_valid(); }, ExitCode::no_checkpoint);
  EXPECT_THAT(text, testing::AllOf(HasSubstr("version 7"), HasSubstr("version 1")));

  // The same digit as damage, which the hash tells, is no reason to give up.
  std::string damaged = manifest_text(Manifest{20, {}, nlohmann::json::object()});
  damaged.replace(damaged.find("\"format_version\": 1"), 19, "\"format_version\": 7");
  write_text(manifest, damaged);
  EXPECT_EQ(store.newest_valid()->step, 10);
}

TEST(CheckpointStore, KeepsStateAsItWas) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(3));
  const nlohmann::json state{{"negative", -5},
                             {"large", int64_t{1} << 62},
                             {"unsigned", ~uint64_t{0}},
                             {"tiny", 5e-324},
                             {"third", 1.0 / 3},
                             {"minus zero", -0.0},
                             {"whole", 2.0},
                             {"list", {1, 2.5, nullptr, true}},
                             {"nested", {{"a", ""}}},
                             {"nan", std::nan("")}};
  CheckpointStore::Save(store, 1).commit({}, state);
  const nlohmann::json got = store.newest_valid()->manifest.state;
  EXPECT_TRUE(got.at("nan").is_null());
  for (const auto& [key, value] : state.items()) {
    if (key == "nan") continue;
    EXPECT_EQ(got.at(key).dump(), value.dump()) << key;
  }
}

TEST(CheckpointStore, OnlyTheOwnerTidiesUpAndOnlyItsOwn) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(3));
  save_step(store, 10);
  const fs::path root = run / "checkpoints";
  const std::vector<std::string> ours{"step-00000020.tmp-1-0", "step-00000030.tmp-999999999-12",
                                      ".trash-step-00000001-77-3"};
  const std::vector<std::string> others{"step-00000020.tmp-abc", ".trash-old", "step-20.tmp-1-1",
                                        "notes.tmp-1-1"};
  for (const auto& name : ours)
    write_text((fs::create_directories(root / name), root / name / "model.safetensors"), "x");
  for (const auto& name : others) fs::create_directories(root / name);

  EXPECT_EQ(store.newest_valid()->step, 10);
  for (const auto& name : ours)
    EXPECT_TRUE(fs::exists(root / name)) << "a reader must not touch what a writer may be writing";

  const RunLock lock(run.path());
  CheckpointStore::Save live(store, 11);
  testing::internal::CaptureStderr();
  EXPECT_EQ(store.newest_valid()->step, 10);
  const std::string log = testing::internal::GetCapturedStderr();
  for (const auto& name : ours) {
    EXPECT_FALSE(fs::exists(root / name)) << name;
    EXPECT_THAT(log, HasSubstr(name));
  }
  for (const auto& name : others) {
    EXPECT_TRUE(fs::exists(root / name)) << name;
    EXPECT_THAT(log, HasSubstr(name + ": left by another program"));
  }
  EXPECT_TRUE(fs::exists(live.directory()));
}

TEST(CheckpointStore, NamesOnlyWhatItWouldWriteItself) {
  EXPECT_EQ(checkpoint_name(1000), "step-00001000");
  EXPECT_EQ(step_of_name("step-00001000"), 1000);
  EXPECT_EQ(step_of_name("step-123456789"), 123456789);
  for (const char* name :
       {"step-1000", "step-000001000", "step-", "step-0000100a", "step-00001000.tmp-1-1",
        "Step-00001000", "step--0000001", "step-99999999999999999999"}) {
    EXPECT_FALSE(step_of_name(name).has_value()) << name;
  }
}

TEST(CheckpointStore, AFolderThatCannotBeReadIsNotAnEmptyOne) {
  const TemporaryFolder run;
  write_text(run / "checkpoints", "a file in the place of the folder");
  const CheckpointStore store(run.path(), keep(3));
  error_of([&] { store.newest_valid(); }, ExitCode::io);
}

TEST(RunLock, KeepsASecondProcessOutAndNamesTheFirst) {
  const TemporaryFolder run;
  std::array<int, 2> ready{}, leave{};
  ASSERT_EQ(pipe(ready.data()), 0);
  ASSERT_EQ(pipe(leave.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte = 0;
    const RunLock lock(run.path());
    if (write(ready[1], "x", 1) != 1 || read(leave[0], &byte, 1) < 0) _exit(1);
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_THAT(error_of([&] { const RunLock lock(run.path()); }, ExitCode::cannot_create),
              HasSubstr(fmt::format("process {} on host", child)));
  ASSERT_EQ(write(leave[1], "x", 1), 1);
  waitpid(child, nullptr, 0);
  const RunLock lock(run.path());
  EXPECT_THAT(read_text(run / "lock"), HasSubstr(fmt::format("process {} ", getpid())));
  for (const int fd : {ready[0], ready[1], leave[0], leave[1]}) close(fd);
}

TEST(RunLock, IsFreeAgainAfterwards) {
  const TemporaryFolder run;
  { const RunLock lock(run.path()); }
  const RunLock again(run.path());
  error_of([&] { const RunLock third(run.path()); }, ExitCode::cannot_create);
}

TEST(RunLock, MakesTheRunFolderOrSaysWhyNot) {
  const TemporaryFolder run;
  { const RunLock lock(run / "new" / "deep"); }
  write_text(run / "file", "");
  error_of([&] { const RunLock lock(run / "file"); }, ExitCode::cannot_create);
}

}  // namespace
}  // namespace polysketch
