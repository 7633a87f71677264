// SPDX-License-Identifier: Apache-2.0
// Files that are broken or meant to hurt: each must end in one UserError 78, soon and without much
// memory.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/yaml_reader.hpp"
#include "config_helpers.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

using namespace std::string_literals;
using test::error_of;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string repeated(const std::string& text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

TEST(Hostile, AliasBomb) {
  std::string bomb = "a0: &a0 [x, x]\n";
  for (int i = 1; i < 30; ++i) bomb += fmt::format("a{}: &a{} [*a{}, *a{}]\n", i, i, i - 1, i - 1);
  EXPECT_THAT(error_of(bomb), AllOf(StartsWith("c.yaml:1:"), HasSubstr("anchor")));
  EXPECT_THAT(error_of("run: &r {seed: 1}\n"), HasSubstr("anchor"));
  EXPECT_THAT(error_of("run: {seed: &s 1}\n"), HasSubstr("anchor"));
  EXPECT_THAT(error_of("run: {seed: &s }\n"), HasSubstr("anchor"));
  EXPECT_THAT(error_of("&a run: {seed: 1}\n"), HasSubstr("anchor"));
  EXPECT_THAT(error_of("run: *r\n"), StartsWith("c.yaml:1:6: ")) << "an alias to nothing";
  EXPECT_THAT(error_of("run: &r {seed: 1, <<: *r}\n"), HasSubstr("anchor")) << "a cycle";
}

TEST(Hostile, MergeKeysAndTags) {
  EXPECT_THAT(error_of("run:\n  <<: {seed: 1}\n"),
              AllOf(StartsWith("c.yaml:2:3: "), HasSubstr("merge key")));
  EXPECT_THAT(error_of("run: !include x.yaml\n"), HasSubstr("tag"));
  EXPECT_THAT(error_of("run: !!python/object:os.system {seed: 1}\n"), HasSubstr("tag"));
  EXPECT_THAT(error_of("run: {seed: !!binary aGk=}\n"), HasSubstr("tag"));
  EXPECT_EQ(error_of("run: !!map {seed: !!int 3, name: !!str no}\n"), "");
}

TEST(Hostile, DeepNesting) {
  for (const auto& deep : {repeated("[", 10'000), repeated("{a: ", 10'000), repeated("- ", 10'000),
                           repeated("? ", 10'000), repeated("[", 10'000) + repeated("]", 10'000),
                           repeated("{", 100'000), repeated("[{a: ", 50'000)}) {
    EXPECT_THAT(error_of(deep), StartsWith("c.yaml:")) << deep.substr(0, 10);
    EXPECT_THAT(error_of("run: " + deep), StartsWith("c.yaml:")) << deep.substr(0, 10);
  }
  EXPECT_THAT(error_of(repeated("[", 1'000'000)), HasSubstr("brackets"));
  std::string indented;
  for (int i = 0; i < 1000; ++i) indented += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_THAT(error_of(indented), HasSubstr("levels deep"));
}

TEST(Hostile, LargeFiles) {
  EXPECT_THAT(error_of(std::string(2 << 20, '#')), HasSubstr("larger than 1048576 bytes"));
  EXPECT_THAT(error_of(repeated("a: 1\n", 200'000)), HasSubstr("more than 10000 values"));
  EXPECT_THAT(error_of("run: [" + repeated("1,", 100'000) + "]"),
              HasSubstr("more than 10000 brackets"));
  EXPECT_THAT(error_of("run: {name: " + std::string(1'000'000, 'x') + "}"),
              AllOf(HasSubstr("..."), HasSubstr("run.name")));
  const std::string key = error_of(std::string(1'000'000, 'k') + ": 1\n");
  EXPECT_LT(key.size(), 1000u);
  std::string unknown;
  for (int i = 0; i < 4000; ++i) unknown += fmt::format("key{}: 1\n", i);
  EXPECT_THAT(error_of(unknown), testing::EndsWith("and 3900 more"));
  try {
    load_config("/dev/zero");
    FAIL() << "an endless file was read";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::config);
  }
}

TEST(Hostile, NotOneDocumentOfText) {
  for (const auto& empty : {""s, "\n\n"s, "# only a comment\n"s, "---\n"s, "~\n"s, "---\n...\n"s})
    EXPECT_THAT(error_of(empty), HasSubstr("empty")) << empty;
  EXPECT_THAT(error_of("run: {seed: 1}\n---\nrun: {seed: 2}\n"),
              AllOf(StartsWith("c.yaml:2:"), HasSubstr("second document")));
  EXPECT_EQ(error_of("---\nrun: {seed: 1}\n...\n"), "");
  EXPECT_EQ(error_of("\xef\xbb\xbfrun: {seed: 1}\n"), "");
  EXPECT_THAT(error_of("\xef\xbb\xbfrun: {sed: 1}\n"), StartsWith("c.yaml:1:7:"));
  EXPECT_THAT(error_of("\xff\xfer\0u\0n\0"s), HasSubstr("UTF-16"));
  EXPECT_THAT(error_of("\xfe\xff\0r\0u\0n"s), HasSubstr("UTF-16 text (big endian"));
  EXPECT_THAT(error_of("\xff\xfe\0\0r\0\0\0"s), HasSubstr("iconv -f UTF-32"));
  EXPECT_THAT(error_of("\x7f"
                       "ELF\x02\x01\x01\0\0"s),
              HasSubstr("binary"));
  EXPECT_THAT(error_of("run:\n  name: a\0b\n"s),
              AllOf(StartsWith("c.yaml:2:"), HasSubstr("0x00 at byte 14")));
  EXPECT_THAT(error_of("run: {name: \"\xe9\"}\n"), HasSubstr("byte 13 is not UTF-8"));
  EXPECT_THAT(error_of("- a\n- b\n"), HasSubstr("got a list, want keys"));
  EXPECT_THAT(error_of("hello\n"), HasSubstr("got a value, want keys"));
  EXPECT_THAT(error_of("run:\n\tseed: 1\n"), AllOf(StartsWith("c.yaml:2:"), HasSubstr("not YAML")));
  EXPECT_THAT(error_of("run: {seed: 1\n"), HasSubstr("not YAML"));
  EXPECT_THAT(error_of("run:\n  directory: 'open\n  seed: 1\n"),
              AllOf(StartsWith("c.yaml:2:14: "), HasSubstr("never closed")));
  EXPECT_THAT(error_of("run:\n  directory: \"open\n"), HasSubstr("never closed"));
  EXPECT_THAT(error_of("run: {'open\n"), HasSubstr("c.yaml"));
  EXPECT_THAT(error_of("run: {seed: 1}}\n"), HasSubstr("not YAML"));
}

// Whatever happens to the bytes of a good file, it loads or is refused in order.
TEST(Hostile, DamagedFilesNeverDoHarm) {
  const std::string good = to_yaml(load_config("")) + "# end\n";
  const std::string alphabet = "{}[]:,-?&*!|>'\"%@`#~ \t\n\\<=.0a\xc3\xff";
  const test::TemporaryFolder folder;
  int refused = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    Philox random(9, RandomPurpose::test, i);
    std::string text = good.substr(0, 200 + random.bounded(good.size() - 200));
    for (uint64_t edits = 1 + random.bounded(4); edits > 0; --edits) {
      const size_t at = random.bounded(text.size());
      switch (random.bounded(3)) {
        case 0:
          text[at] = alphabet[random.bounded(alphabet.size())];
          break;
        case 1:
          text.insert(at, 1 + random.bounded(3), alphabet[random.bounded(alphabet.size())]);
          break;
        default:
          text.erase(at, 1 + random.bounded(8));
      }
    }
    test::write_text(folder / "c.yaml", text);
    try {
      load_config(folder / "c.yaml");
    } catch (const UserError& error) {
      ASSERT_EQ(error.code(), ExitCode::config) << text;
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace polysketch
