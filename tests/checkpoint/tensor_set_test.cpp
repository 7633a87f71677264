// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/tensor_set.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/group_fixture.hpp"
#include "helpers/test_helpers.hpp"
#include "support/error.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::GroupData;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;

/// The smallest possible largest share, by trying every cut.
uint64_t best_largest(const std::vector<uint64_t>& bytes, size_t begin, int64_t shares) {
  if (shares == 1)
    return std::accumulate(bytes.begin() + static_cast<std::ptrdiff_t>(begin), bytes.end(),
                           uint64_t{0});
  uint64_t best = std::numeric_limits<uint64_t>::max(), first = 0;
  for (size_t end = begin; end <= bytes.size(); ++end) {
    best = std::min(best, std::max(first, best_largest(bytes, end, shares - 1)));
    if (end < bytes.size()) first += bytes[end];
  }
  return best;
}

TEST(ShareOut, IsConsecutiveAndBalancedAsWellAsCanBe) {
  Philox random(5, RandomPurpose::test);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<uint64_t> bytes(1 + random.bounded(9));
    for (uint64_t& size : bytes) size = random.bounded(4) == 0 ? 0 : random.bounded(1000);
    const auto writers = static_cast<int64_t>(1 + random.bounded(4));
    const std::vector<int64_t> owners = share_out(bytes, writers);
    ASSERT_EQ(owners.size(), bytes.size());
    EXPECT_EQ(owners.front(), 0);
    std::vector<uint64_t> held(static_cast<size_t>(writers));
    for (size_t i = 0; i < owners.size(); ++i) {
      ASSERT_LT(owners[i], writers);
      const int64_t before = i == 0 ? 0 : owners[i - 1];
      EXPECT_TRUE(owners[i] == before || owners[i] == before + 1) << "consecutive, without gaps";
      held[static_cast<size_t>(owners[i])] += bytes[i];
    }
    EXPECT_EQ(*std::max_element(held.begin(), held.end()), best_largest(bytes, 0, writers));
  }
}

TEST(ShareOut, OfNothingAndOfHugeSizes) {
  EXPECT_TRUE(share_out(std::vector<uint64_t>{}, 3).empty());
  EXPECT_THAT(share_out(std::vector<uint64_t>{0, 0}, 2), ElementsAre(0, 0));
  EXPECT_THAT(share_out(std::vector<uint64_t>{uint64_t{1} << 61, uint64_t{1} << 61, 1}, 2),
              ElementsAre(0, 1, 1));
  EXPECT_THROW(share_out(std::vector<uint64_t>{1}, 0), InternalError);
}

TEST(TensorSet, NamesOfFiles) {
  EXPECT_EQ(tensor_file_name("model", 0, 1), "model.safetensors");
  EXPECT_EQ(tensor_file_name("model", 1, 3), "model-00002-of-00003.safetensors");
  EXPECT_THAT(groups_of({{"model-00001-of-00002.safetensors", 0, "", {}},
                         {"model-00002-of-00002.safetensors", 0, "", {}},
                         {"model.safetensors.index.json", 0, "", {}},
                         {"optimizer.safetensors", 0, "", {}},
                         {"odd-00003-of-00002.safetensors", 0, "", {}}}),
              ElementsAre("model", "optimizer", "odd-00003-of-00002"));
}

std::vector<FileRecord> write_all(const fs::path& folder, const GroupData& data, int64_t world) {
  std::vector<FileRecord> all;
  for (int64_t rank = 0; rank < world; ++rank) {
    for (FileRecord& file : write_share(folder, data.groups(), rank, world))
      all.push_back(std::move(file));
  }
  return all;
}

TEST(TensorSet, FindsTensorsInWhicheverFileHoldsThem) {
  const TemporaryFolder folder;
  const GroupData data(3);
  const auto files = write_all(folder.path(), data, 3);
  const TensorSet set(folder.path(), files, "model");
  EXPECT_EQ(set.files(), 3U);
  EXPECT_EQ(set.where(), folder / "model-*-of-00003.safetensors");
  EXPECT_EQ(set.find("tensor.99"), nullptr);
  const auto& want = data.groups()[0].tensors;
  ASSERT_EQ(set.tensors().size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(set.tensors()[i].name, want[i].name) << "in the order in which they were given";
    std::vector<float> got(static_cast<size_t>(want[i].shape[0]));
    set.read(*set.find(want[i].name), got.data());
    EXPECT_EQ(std::memcmp(got.data(), want[i].data, got.size() * sizeof(float)), 0) << want[i].name;
  }
}

TEST(TensorSet, MoreWritersThanTensors) {
  const TemporaryFolder folder;
  const std::vector<float> values(6);
  const TensorGroup group{
      "model",
      {{"a", DataType::f32, {2}, values.data()}, {"b", DataType::f32, {4}, values.data()}},
      {}};
  std::vector<FileRecord> files;
  for (int64_t rank = 0; rank < 5; ++rank) {
    for (FileRecord& file : write_share(folder.path(), {group}, rank, 5))
      files.push_back(std::move(file));
  }
  ASSERT_EQ(files.size(), 2U);
  EXPECT_EQ(files[1].name, "model-00002-of-00002.safetensors");
  EXPECT_EQ(TensorSet(folder.path(), files, "model").tensors().size(), 2U);
  EXPECT_EQ(write_share(folder / "", {{"empty", {}, {}}}, 0, 3).at(0).name, "empty.safetensors");
}

/// By the rules of the index files that other programs read, not by our reader.
TEST(TensorSet, TheIndexLeadsToEveryTensor) {
  const TemporaryFolder folder;
  const GroupData data(3);
  write_all(folder.path(), data, 3);
  const auto indexes = write_indexes(folder.path(), data.groups(), 3);
  ASSERT_EQ(indexes.size(), 2U);
  EXPECT_EQ(indexes[0].name, "model.safetensors.index.json");
  EXPECT_EQ(indexes[0].bytes, fs::file_size(folder / indexes[0].name));
  EXPECT_EQ(indexes[1].name, "optimizer.safetensors.index.json");
  for (size_t group = 0; group < 2; ++group) {
    const auto index = nlohmann::json::parse(test::read_text(folder / indexes[group].name));
    uint64_t total = 0;
    for (const TensorView& tensor : data.groups()[group].tensors) {
      const TensorFile file(folder / index.at("weight_map").at(tensor.name).get<std::string>());
      ASSERT_NE(file.find(tensor.name), nullptr) << tensor.name;
      total += file.find(tensor.name)->bytes;
    }
    EXPECT_EQ(index.at("weight_map").size(), data.groups()[group].tensors.size());
    EXPECT_EQ(index.at("metadata").at("total_size"), total);
  }
  EXPECT_TRUE(write_indexes(folder.path(), data.groups(), 1).empty()) << "one file needs none";
}

TEST(TensorSet, RefusesAnIncompleteOrContradictorySet) {
  const TemporaryFolder folder;
  const GroupData data(3);
  const auto files = write_all(folder.path(), data, 3);
  const auto error = [&](const std::vector<FileRecord>& list, const std::string& group) {
    try {
      const TensorSet set(folder.path(), list, group);
      return std::string("accepted");
    } catch (const UserError& refused) {
      EXPECT_EQ(refused.code(), ExitCode::no_checkpoint);
      return std::string(refused.what());
    }
  };
  EXPECT_THAT(error(files, "weights"), HasSubstr("lists no weights.safetensors"));
  std::vector<FileRecord> fewer = files;
  fewer.erase(fewer.begin() + 2);
  EXPECT_THAT(error(fewer, "model"), HasSubstr("lists 2 of 3 files of model"));
  std::vector<FileRecord> mixed = files;
  mixed.push_back({"model.safetensors", 1, "", {}});
  EXPECT_THAT(error(mixed, "model"), HasSubstr("as one file and as several"));
  fs::copy_file(folder / "model-00001-of-00003.safetensors",
                folder / "model-00002-of-00003.safetensors", fs::copy_options::overwrite_existing);
  EXPECT_THAT(error(files, "model"), HasSubstr("'tensor.0' is in two files"));
}

/// A process reads files that another has verified; its own view of them may be bad.
TEST(TensorSet, ChecksWhatItReads) {
  const TemporaryFolder folder;
  const GroupData data(3);
  const auto files = write_all(folder.path(), data, 2);
  const fs::path last = folder / "model-00002-of-00002.safetensors";
  std::string content = test::read_text(last);
  content.back() = static_cast<char>(content.back() ^ 1);
  test::write_text(last, content);
  const TensorSet set(folder.path(), files, "model");
  std::vector<char> bytes(10'000);
  EXPECT_NO_THROW(set.read(*set.find("tensor.0"), bytes.data()));
  try {
    set.read(*set.find("tensor.6"), bytes.data());
    ADD_FAILURE() << "a changed tensor was read";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::no_checkpoint);
    EXPECT_THAT(error.what(),
                testing::AllOf(HasSubstr("model-00002-of-00002"), HasSubstr("'tensor.6'")));
  }
}

}  // namespace
}  // namespace polysketch
