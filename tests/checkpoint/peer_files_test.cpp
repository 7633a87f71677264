// SPDX-License-Identifier: Apache-2.0
// Writes a tensor file for scripts/check_formats to open with Python's safetensors, and reads the
// one that it writes back.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/tensor_file.hpp"

namespace polysketch {
namespace {

/// Byte i of a tensor is (i * 7 + its number) mod 251, mod 2 for truth values; the script knows the
/// same rule.
std::vector<TensorView> pattern(std::vector<std::string>& storage) {
  const std::vector<std::pair<DataType, std::vector<int64_t>>> kinds{
      {DataType::f64, {2, 3}},     {DataType::f32, {4, 0}},    {DataType::f32, {5, 7}},
      {DataType::bf16, {9}},       {DataType::f16, {2, 2, 2}}, {DataType::i64, {}},
      {DataType::i32, {3}},        {DataType::i16, {1, 1}},    {DataType::i8, {11}},
      {DataType::u8, {1'500'000}}, {DataType::boolean, {6}}};
  std::vector<TensorView> tensors;
  storage.resize(kinds.size());
  for (size_t number = 0; number < kinds.size(); ++number) {
    const auto& [type, shape] = kinds[number];
    int64_t bytes = size_of(type);
    for (const int64_t extent : shape) bytes *= extent;
    for (int64_t i = 0; i < bytes; ++i) {
      storage[number].push_back(static_cast<char>((i * 7 + static_cast<int64_t>(number)) %
                                                  (type == DataType::boolean ? 2 : 251)));
    }
    tensors.push_back({"tensor." + std::to_string(number), type, shape, storage[number].data()});
  }
  return tensors;
}

TEST(PeerFiles, WritesTensorsForPython) {
  const char* folder = std::getenv("POLYSKETCH_PEER_FILES");
  if (folder == nullptr)
    GTEST_SKIP() << "POLYSKETCH_PEER_FILES names no folder; scripts/check_formats does";
  std::vector<std::string> storage;
  write_safetensors(std::filesystem::path(folder) / "ours.safetensors", pattern(storage),
                    {{"writer", "polysketch \xC3\xA9"}});
}

TEST(PeerFiles, ReadsTensorsFromPython) {
  const char* folder = std::getenv("POLYSKETCH_PEER_FILES");
  if (folder == nullptr)
    GTEST_SKIP() << "POLYSKETCH_PEER_FILES names no folder; scripts/check_formats does";
  const auto path = std::filesystem::path(folder) / "theirs.safetensors";
  if (!std::filesystem::exists(path))
    GTEST_SKIP() << path << " is missing: Python has not written it";
  std::vector<std::string> storage;
  const TensorFile file(path);
  EXPECT_EQ(file.metadata().at("writer"), "python");
  const auto want = pattern(storage);
  EXPECT_EQ(file.tensors().size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    const TensorInfo* info = file.find(want[i].name);
    ASSERT_NE(info, nullptr) << want[i].name;
    EXPECT_EQ(info->type, want[i].type);
    EXPECT_EQ(info->shape, want[i].shape);
    std::string bytes(info->bytes, '\0');
    file.read(*info, bytes.data());
    EXPECT_EQ(bytes, storage[i]) << want[i].name;
  }
}

}  // namespace
}  // namespace polysketch
