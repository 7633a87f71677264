// SPDX-License-Identifier: Apache-2.0
#include "support/hash.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "helpers/test_helpers.hpp"
#include "support/error.hpp"
#include "support/hash_kernels.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

std::vector<uint8_t> random_bytes(size_t size, uint64_t stream) {
  Philox random(7, RandomPurpose::test, stream);
  std::vector<uint8_t> bytes(size);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random.next_u32());
  return bytes;
}

// RFC 3720, appendix B.4.
TEST(Crc32c, KnownAnswers) {
  std::vector<uint8_t> bytes(32, 0);
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x8a9136aau);
  bytes.assign(32, 0xff);
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x62a8ab43u);
  for (size_t i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(i);
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x46dd794eu);
  for (size_t i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(31 - i);
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x113fdb5cu);
  EXPECT_EQ(crc32c("123456789", 9), 0xe3069283u);
  EXPECT_EQ(crc32c(nullptr, 0), 0u);
}

TEST(Crc32c, ContinuesAnywhere) {
  const auto bytes = random_bytes(1000, 1);
  const uint32_t whole = crc32c(bytes.data(), bytes.size());
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    ASSERT_EQ(crc32c(bytes.data() + cut, bytes.size() - cut, crc32c(bytes.data(), cut)), whole)
        << cut;
  }
}

TEST(Crc32c, InstructionAgreesWithTables) {
  if (!hash_kernels::has_crc32c_instruction())
    GTEST_SKIP() << "this CPU has no CRC-32C instruction";
  const auto bytes = random_bytes(300, 2);
  for (size_t start = 0; start < 9; ++start) {
    for (size_t size = 0; size + start <= bytes.size(); ++size) {
      ASSERT_EQ(hash_kernels::crc32c_hardware(0x12345678, bytes.data() + start, size),
                hash_kernels::crc32c_software(0x12345678, bytes.data() + start, size));
    }
  }
}

// The length field of every TFRecord is masked in this way; a real file holds the answers.
TEST(Crc32c, MaskedFormOfTfrecords) {
  EXPECT_EQ(masked_crc32c("123456789", 9),
            ((0xe3069283u >> 15) | (0xe3069283u << 17)) + 0xa282ead8u);
  const auto data = test::shared_folder("data");
  if (!data) GTEST_SKIP() << "no ../shared/data: real TFRecord files";
  const auto folder = *data / "c4/tfds/c4/en/3.1.0";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().find(".tfrecord") == std::string::npos ||
        entry.file_size() < 12)
      continue;
    std::ifstream file(entry.path(), std::ios::binary);
    char length[8];
    uint8_t crc[4];
    file.read(length, 8).read(reinterpret_cast<char*>(crc), 4);
    EXPECT_EQ(masked_crc32c(length, 8),
              crc[0] | uint32_t{crc[1]} << 8 | uint32_t{crc[2]} << 16 | uint32_t{crc[3]} << 24)
        << entry.path();
    ++files;
  }
  EXPECT_GT(files, 0);
}

// FIPS 180-4 examples and the million-letter vector of the NIST test suite.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesMakeTheWhole) {
  const auto bytes = random_bytes(400, 3);
  Sha256 whole;
  whole.update(bytes.data(), bytes.size());
  const std::string expected = whole.hex();
  for (size_t piece = 1; piece <= 200; ++piece) {
    Sha256 hash;
    for (size_t at = 0; at < bytes.size(); at += piece)
      hash.update(bytes.data() + at, std::min(piece, bytes.size() - at));
    ASSERT_EQ(hash.hex(), expected) << piece;
  }
}

TEST(Sha256, InstructionsAgreeWithThePlainForm) {
  if (!hash_kernels::has_sha256_instructions()) GTEST_SKIP() << "this CPU has no SHA instructions";
  for (size_t blocks = 0; blocks < 20; ++blocks) {
    const auto bytes = random_bytes(64 * blocks + 1, 4 + blocks);
    std::array<uint32_t, 8> a{1, 2, 3, 4, 5, 6, 7, 8}, b = a;
    hash_kernels::sha256_hardware(a, bytes.data() + 1, blocks);
    hash_kernels::sha256_software(b, bytes.data() + 1, blocks);
    ASSERT_EQ(a, b) << blocks;
  }
}

TEST(Sha256, OfAFile) {
  const test::TemporaryFolder folder;
  const std::string text(3'000'001, 'x');
  test::write_text(folder / "a", text);
  EXPECT_EQ(sha256_file(folder / "a"), sha256_hex(text));
  try {
    sha256_file(folder / "missing");
    FAIL() << "a missing file was hashed";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
  }
}

}  // namespace
}  // namespace polysketch
