// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/tensor_file.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "helpers/test_helpers.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

using test::read_text;
using test::TemporaryFolder;
using test::write_text;

struct Tensor {
  std::string name;
  DataType type;
  std::vector<int64_t> shape;
  std::string bytes;
  TensorView view() const { return {name, type, shape, bytes.data()}; }
};

Tensor random_tensor(const std::string& name, DataType type, std::vector<int64_t> shape) {
  Philox random(7, RandomPurpose::test, name.size());
  int64_t bytes = size_of(type);
  for (const int64_t extent : shape) bytes *= extent;
  std::string content(static_cast<size_t>(bytes), '\0');
  for (char& byte : content) byte = static_cast<char>(random.next_u32());
  return {name, type, std::move(shape), content};
}

std::vector<Tensor> some_tensors() {
  return {random_tensor("embedding", DataType::f32, {5, 3}),
          random_tensor("h.0.\"odd\"\n\xC3\xA9", DataType::bf16, {7}),
          random_tensor("nothing", DataType::f64, {4, 0, 2}),
          random_tensor("step", DataType::i64, {}),
          random_tensor("mask", DataType::boolean, {2, 2}),
          random_tensor("big", DataType::u8, {3'000'001})};
}

std::vector<TensorView> views(const std::vector<Tensor>& tensors) {
  std::vector<TensorView> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.view());
  return result;
}

std::string content_of(const TensorFile& file, const TensorInfo& info) {
  std::string bytes(info.bytes, '\0');
  file.read(info, bytes.data());
  return bytes;
}

/// Changes one byte in place: rewriting whole files by the thousand would make these tests wait for
/// the disk.
void put_byte(const std::filesystem::path& path, size_t at, char byte) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
  ASSERT_TRUE(file.good()) << path;
}

std::string with_header(const std::string& header, const std::string& data) {
  std::string text(8, '\0');
  for (size_t i = 0; i < 8; ++i) text[i] = static_cast<char>(header.size() >> (8 * i));
  return text + header + data;
}

/// What opening the content says; empty if it opens.
std::string defect_of(const std::string& content) {
  static const TemporaryFolder folder;
  const auto path = folder / "case.safetensors";
  write_text(path, content);
  try {
    const TensorFile file(path);
    return {};
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
    EXPECT_THAT(error.what(), testing::HasSubstr("case.safetensors"));
    return error.what();
  }
}

TEST(TensorFile, GivesBackWhatWasWritten) {
  const TemporaryFolder folder;
  const auto path = folder / "model.safetensors";
  const auto tensors = some_tensors();
  const FileRecord record =
      write_safetensors(path, views(tensors), {{"step", "12"}, {"note", "a \"quoted\" one"}});
  EXPECT_EQ(record.name, "model.safetensors");
  EXPECT_EQ(record.bytes, std::filesystem::file_size(path));
  EXPECT_EQ(record.sha256, sha256_hex(read_text(path)));

  const TensorFile file(path);
  ASSERT_EQ(file.tensors().size(), tensors.size());
  EXPECT_EQ(file.metadata().at("note"), "a \"quoted\" one");
  for (const Tensor& tensor : tensors) {
    const TensorInfo* info = file.find(tensor.name);
    ASSERT_NE(info, nullptr) << tensor.name;
    EXPECT_EQ(info->type, tensor.type);
    EXPECT_EQ(info->shape, tensor.shape);
    EXPECT_EQ(content_of(file, *info), tensor.bytes) << tensor.name;
    std::string target(info->bytes, '\0');
    EXPECT_EQ(file.read(*info, target.data()), record.crc32c.at(tensor.name));
    EXPECT_EQ(record.crc32c.at(tensor.name), crc32c(tensor.bytes.data(), tensor.bytes.size()));
  }
  EXPECT_EQ(file.find("absent"), nullptr);
}

TEST(TensorFile, DataBeginAligned) {
  const TemporaryFolder folder;
  for (int length = 1; length <= 9; ++length) {
    const Tensor tensor =
        random_tensor(std::string(static_cast<size_t>(length), 'n'), DataType::f32, {1});
    write_safetensors(folder / "f", {tensor.view()});
    EXPECT_EQ(TensorFile(folder / "f").tensors().at(0).offset % 8, 0U);
  }
}

TEST(TensorFile, HoldsNoTensorsAtAll) {
  const TemporaryFolder folder;
  write_safetensors(folder / "f", {});
  EXPECT_TRUE(TensorFile(folder / "f").tensors().empty());
}

TEST(TensorFile, NamesTheReasonOfAMissingFile) {
  try {
    const TensorFile file("/nowhere/model.safetensors");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
  }
}

TEST(TensorFile, DoesNotHangOnAFifo) {
  const TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(TensorFile(folder / "pipe"), UserError);
}

struct Malformed {
  const char* what;
  std::string content;
  const char* defect;
};

std::string entry(const char* name, const char* dtype, const char* shape, const char* offsets) {
  return fmt::format("\"{}\":{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":{}}}", name, dtype,
                     shape, offsets);
}

std::vector<Malformed> malformed_files() {
  const std::string eight(8, 'x');
  const std::string good = entry("a", "F32", "[2]", "[0,8]");
  const auto one = [&](const char* dtype, const char* shape, const char* offsets) {
    return with_header("{" + entry("a", dtype, shape, offsets) + "}", eight);
  };
  const auto two = [&](const char* first, const char* second) {
    return with_header(
        "{" + entry("a", "U8", "[4]", first) + "," + entry("b", "U8", "[4]", second) + "}", eight);
  };
  return {
      {"empty file", "", "fewer than the 8"},
      {"half a length", "1234567", "fewer than the 8"},
      {"length beyond the limit", std::string("\x01\xE1\xF5\x05\0\0\0\0", 8) + eight,
       "more than 100000000"},
      {"length of 2^64 - 1", std::string(8, '\xFF') + eight, "more than 100000000"},
      {"length beyond the file", std::string("\x64\0\0\0\0\0\0\0", 8) + "{}", "the file has 2"},
      {"header of nothing", with_header("", ""), "begin with '{'"},
      {"header of a list", with_header("[]", ""), "begin with '{'"},
      {"blank first", with_header(" {}", ""), "begin with '{'"},
      {"byte order mark", with_header("\xEF\xBB\xBF{}", ""), "begin with '{'"},
      {"unfinished", with_header("{", ""), "end with '}'"},
      {"tab after the end", with_header("{}\t", ""), "end with '}'"},
      {"two objects", with_header("{}{}", ""), "not valid JSON"},
      {"NUL and more behind the end", with_header(std::string("{}\0{}", 5), ""), "NUL"},
      {"ill-formed UTF-8", with_header("{\"__metadata__\":{\"a\":\"\xC3\x28\"}}", ""),
       "not valid JSON"},
      {"metadata of numbers", with_header("{\"__metadata__\":{\"a\":1}}", ""), "wrong place"},
      {"metadata of an object", with_header("{\"__metadata__\":{\"a\":{}}}", ""), "wrong place"},
      {"metadata no object", with_header("{\"__metadata__\":\"a\"}", ""), "wrong place"},
      {"metadata repeated", with_header("{\"__metadata__\":{},\"__metadata__\":{}}", ""),
       "repeats"},
      {"metadata key repeated", with_header("{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"}}", ""),
       "repeats"},
      {"tensor repeated", with_header("{" + good + "," + good + "}", eight),
       "repeats the tensor 'a'"},
      {"key of a tensor repeated",
       with_header(
           "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
           eight),
       "repeats the key"},
      {"unknown key",
       with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}",
                   eight),
       "unknown key 'x'"},
      {"no dtype", with_header("{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", eight),
       "needs dtype"},
      {"no shape", with_header("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", eight),
       "needs dtype"},
      {"no offsets", with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", eight),
       "needs dtype"},
      {"unknown dtype", one("F31", "[2]", "[0,8]"), "unknown dtype 'F31'"},
      {"dtype in small letters", one("f32", "[2]", "[0,8]"), "unknown dtype"},
      {"negative extent", one("F32", "[-2]", "[0,8]"), "wrong place"},
      {"fraction", one("F32", "[2.0]", "[0,8]"), "wrong place"},
      {"exponent", one("F32", "[2e0]", "[0,8]"), "wrong place"},
      {"extent beyond 64 bits", one("F32", "[99999999999999999999]", "[0,8]"), "wrong place"},
      {"extent beyond 63 bits", one("F32", "[18446744073709551615]", "[0,8]"), "too large"},
      {"product overflows to the right size", one("F32", "[4611686018427387904,4]", "[0,8]"),
       "overflows"},
      {"product of types overflows", one("F64", "[2305843009213693952]", "[0,8]"), "overflows"},
      {"overflow hidden by a zero", one("U8", "[9223372036854775807,2,0]", "[0,0]"), "overflows"},
      {"shape nested", one("F32", "[[2]]", "[0,8]"), "wrong place"},
      {"shape a number", one("F32", "2", "[0,8]"), "wrong place"},
      {"one offset", one("F32", "[2]", "[8]"), "want 2"},
      {"three offsets", one("F32", "[2]", "[0,8,8]"), "more than 2"},
      {"offsets reversed", one("F32", "[2]", "[8,0]"), "end before they begin"},
      {"size and shape disagree", one("F32", "[3]", "[0,8]"), "shape needs 12 bytes"},
      {"small file, huge tensor", one("F32", "[1000000000000]", "[0,4000000000000]"),
       "the file has 8"},
      {"beyond the end", one("F32", "[4]", "[0,16]"), "the file has 8"},
      {"bytes after the last tensor", one("F32", "[1]", "[0,4]"), "4 bytes after"},
      {"hole at the start", one("F32", "[1]", "[4,8]"), "hole of 4"},
      {"hole between",
       with_header(
           "{" + entry("a", "U8", "[2]", "[0,2]") + "," + entry("b", "U8", "[4]", "[4,8]") + "}",
           eight),
       "hole of 2"},
      {"overlap", two("[0,4]", "[2,6]"), "overlap"},
      {"same bytes twice", two("[0,4]", "[0,4]"), "overlap"},
      {"65 dimensions",
       one("U8",
           ("[" + std::string("1") +
            [] {
              std::string s;
              for (int i = 0; i < 64; ++i) s += ",1";
              return s;
            }() +
            "]")
               .c_str(),
           "[0,1]"),
       "dimensions"},
      {"nesting", with_header(std::string(1, '{') + "\"a\":" + std::string(100'000, '[') + "}", ""),
       "wrong place"},
  };
}

TEST(TensorFile, RefusesEveryMalformedFileWithItsReason) {
  ASSERT_EQ(
      defect_of(with_header("{" + entry("a", "F32", "[2]", "[0,8]") + "}  ", std::string(8, 'x'))),
      "")
      << "the pattern of the cases must itself be good";
  for (const Malformed& malformed : malformed_files())
    EXPECT_THAT(defect_of(malformed.content), testing::HasSubstr(malformed.defect))
        << malformed.what;
}

[[noreturn]] void refuse_all_in_little_memory() {
  const rlimit limit{uint64_t{64} << 20, uint64_t{64} << 20};
  setrlimit(RLIMIT_DATA, &limit);
  bool all = true;
  for (const Malformed& malformed : malformed_files())
    all = all && !defect_of(malformed.content).empty();
  std::_Exit(all ? 0 : 1);
}

TEST(TensorFile, RefusesBeforeItAllocates) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers reserve the address space that this test limits";
#endif
  EXPECT_EXIT(refuse_all_in_little_memory(), testing::ExitedWithCode(0), "");
}

TEST(TensorFile, SurvivesEveryBitFlipOfItsHeader) {
  const TemporaryFolder folder;
  const std::vector<Tensor> tensors{random_tensor("a", DataType::f32, {3, 2}),
                                    random_tensor("b", DataType::bf16, {5}),
                                    random_tensor("c", DataType::i64, {1})};
  write_safetensors(folder / "good", views(tensors), {{"k", "v"}});
  const std::string good = read_text(folder / "good");
  const size_t header = TensorFile(folder / "good").tensors().at(0).offset;
  write_text(folder / "bad", good);
  int refused = 0;
  for (size_t at = 0; at < header; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      put_byte(folder / "bad", at, static_cast<char>(good[at] ^ (1 << bit)));
      try {
        // A changed name or one type of a size for another make a sound file; then every byte of
        // the data is still some tensor's, once.
        const TensorFile file(folder / "bad");
        std::string data;
        for (const TensorInfo& info : file.tensors()) data += content_of(file, info);
        EXPECT_EQ(data, good.substr(header)) << at;
      } catch (const UserError& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_data);
        ++refused;
      }
    }
    put_byte(folder / "bad", at, good[at]);
  }
  EXPECT_GT(refused, static_cast<int>(header) * 6);
}

TEST(TensorFile, RefusesEveryTruncation) {
  const TemporaryFolder folder;
  const std::vector<Tensor> tensors{random_tensor("a", DataType::f32, {3, 2}),
                                    random_tensor("b", DataType::bf16, {5})};
  write_safetensors(folder / "good", views(tensors));
  const std::string good = read_text(folder / "good");
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_NE(defect_of(good.substr(0, size)), "") << size;
  EXPECT_NE(defect_of(good + "x"), "");
}

TEST(TensorFile, NoticesThatTheFileShrankAfterOpening) {
  const TemporaryFolder folder;
  const Tensor tensor = random_tensor("a", DataType::u8, {100'000});
  write_safetensors(folder / "f", {tensor.view()});
  const TensorFile file(folder / "f");
  std::filesystem::resize_file(folder / "f", 5000);
  std::string target(tensor.bytes.size(), '\0');
  EXPECT_THROW(file.read(file.tensors().at(0), target.data()), UserError);
}

TEST(TensorFile, ChecksumFindsEveryFlippedBitOfATensor) {
  const TemporaryFolder folder;
  const Tensor tensor = random_tensor("a", DataType::u8, {300});
  const FileRecord record = write_safetensors(folder / "f", {tensor.view()});
  const std::string good = read_text(folder / "f");
  const size_t begin = good.size() - tensor.bytes.size();
  for (size_t at = begin; at < good.size(); ++at) {
    put_byte(folder / "f", at, static_cast<char>(good[at] ^ (1 << at % 8)));
    const TensorFile file(folder / "f");
    std::string target(300, '\0');
    ASSERT_NE(file.read(file.tensors().at(0), target.data()), record.crc32c.at("a"));
    put_byte(folder / "f", at, good[at]);
  }
}

}  // namespace
}  // namespace polysketch
