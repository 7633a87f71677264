// SPDX-License-Identifier: Apache-2.0
#include "support/text.hpp"

#include <gtest/gtest.h>

#include "helpers/test_helpers.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

// A second way to encode, so that all 1,112,064 code points can be checked.
std::string encode(uint32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  std::string text;
  const int extra = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  text += static_cast<char>((0xff00u >> (extra + 1) & 0xff) | c >> (6 * extra));
  for (int i = extra - 1; i >= 0; --i) text += static_cast<char>(0x80 | (c >> (6 * i) & 0x3f));
  return text;
}

TEST(Utf8, EveryCodePointAndNoSurrogate) {
  for (uint32_t c = 0; c <= 0x10ffff; ++c) {
    const bool surrogate = c >= 0xd800 && c <= 0xdfff;
    ASSERT_EQ(invalid_utf8_at(encode(c)).has_value(), surrogate) << std::hex << c;
  }
}

TEST(Utf8, IsAppendedAsItIsRead) {
  for (uint32_t c = 0; c <= 0x10ffff; c += c < 0x1000 ? 1 : 37) {
    std::string text = "a";
    append_utf8(c, text);
    ASSERT_EQ(text, "a" + encode(c)) << std::hex << c;
  }
}

TEST(ByteOrderMark, IsNamedAndTakenOff) {
  using namespace std::string_literals;
  EXPECT_EQ(byte_order_mark("text").bytes, 0U);
  EXPECT_EQ(byte_order_mark("").bytes, 0U);
  EXPECT_EQ(byte_order_mark("\xef\xbb").bytes, 0U);
  EXPECT_EQ(without_byte_order_mark("\xef\xbb\xbftext"), "text");
  EXPECT_EQ(without_byte_order_mark("text\xef\xbb\xbf"), "text\xef\xbb\xbf");
  EXPECT_EQ(without_byte_order_mark("\xff\xfe"), "\xff\xfe");
  EXPECT_EQ(foreign_encoding("\xef\xbb\xbftext"), "");
  EXPECT_EQ(foreign_encoding("text"), "");
  EXPECT_EQ(foreign_encoding(std::string("t\0t", 3)), "");
  EXPECT_EQ(foreign_encoding(std::string("t\0e\0", 4)).substr(0, 11), "UTF-16 text");
  EXPECT_EQ(foreign_encoding("\x1f\x8b\x08").substr(0, 18), "compressed by gzip");
  const auto begins = [](const std::string& text, const std::string& wanted) {
    EXPECT_EQ(foreign_encoding(text).substr(0, wanted.size()), wanted);
  };
  begins("\xff\xfet\0"s, "UTF-16 text (little endian");
  begins("\xfe\xff\0t"s, "UTF-16 text (big endian");
  begins("\xff\xfe\0\0t"s, "UTF-32 text (little endian");
  begins("\0\0\xfe\xff"s, "UTF-32 text (big endian");
}

TEST(AsciiLower, LeavesOtherLettersAlone) {
  EXPECT_EQ(ascii_lower("AbZ[@`{09.\xC3\x89"), "abz[@`{09.\xC3\x89");
}

TEST(Utf8, NamesTheOffset) {
  using namespace std::string_literals;
  const std::pair<std::string, size_t> cases[] = {
      {"ab\xff", 2},       {"\xc0\x80", 0},         {"a\xc3", 1},    {"\xe2\x82", 0},
      {"\xed\xa0\x80", 0}, {"\xf4\x90\x80\x80", 0}, {"\xf5\x80", 0}, {"é\x80", 2},
      {"\xe0\x9f\xbf", 0}, {"\xf0\x8f\xbf\xbf", 0}, {"\xc3(", 0},    {"ok\xf0\x9f\x98", 2}};
  for (const auto& [text, offset] : cases) EXPECT_EQ(invalid_utf8_at(text), offset);
  EXPECT_EQ(invalid_utf8_at("nul \0 inside é 漢 😀"s), std::nullopt);
  EXPECT_EQ(invalid_utf8_at(""), std::nullopt);
}

TEST(CountWords, AsPythonSplits) {
  EXPECT_EQ(count_words(""), 0);
  EXPECT_EQ(count_words(" \t\n "), 0);
  EXPECT_EQ(count_words("one"), 1);
  EXPECT_EQ(count_words(" one  two\nthree\r\n"), 3);
  EXPECT_EQ(count_words("a\xc2\xa0"
                        "b"),
            2)
      << "no-break space";
  EXPECT_EQ(count_words("a\x1f"
                        "b"),
            2)
      << "unit separator";
  EXPECT_EQ(count_words("a\xe2\x80\x8b"
                        "b"),
            1)
      << "zero-width space is none";
  for (const uint32_t space : {0x9u, 0xbu, 0xcu, 0x1cu, 0x85u, 0x1680u, 0x2000u, 0x200au, 0x2028u,
                               0x2029u, 0x202fu, 0x205fu, 0x3000u}) {
    EXPECT_EQ(count_words("a" + encode(space) + "b"), 2) << std::hex << space;
  }
  EXPECT_EQ(count_words("\xff \xfe"), 2) << "broken bytes are parts of words";
}

TEST(EditDistance, IsAMetricOnSlips) {
  EXPECT_EQ(edit_distance("steps", "steps"), 0);
  EXPECT_EQ(edit_distance("stpes", "steps"), 1);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  Philox random(1, RandomPurpose::test);
  const auto word = [&] {
    std::string text;
    for (uint64_t i = random.bounded(6); i > 0; --i)
      text += static_cast<char>('a' + random.bounded(3));
    return text;
  };
  for (int i = 0; i < 2000; ++i) {
    const std::string a = word(), b = word();
    ASSERT_EQ(edit_distance(a, b), edit_distance(b, a)) << a << " " << b;
    ASSERT_EQ(edit_distance(a, b) == 0, a == b);
    ASSERT_LE(edit_distance(a, b), static_cast<int>(std::max(a.size(), b.size())));
  }
}

TEST(Nearest, OnlySlips) {
  const std::vector<std::string> keys = {"steps", "batch_tokens", "precision", "on"};
  EXPECT_EQ(nearest("step", keys), "steps");
  EXPECT_EQ(nearest("batchtoken", keys), "batch_tokens");
  EXPECT_EQ(nearest("microscope", keys), std::nullopt);
  EXPECT_EQ(nearest("xy", keys), std::nullopt) << "nothing in common";
  EXPECT_EQ(nearest("a", {}), std::nullopt);
}

}  // namespace
}  // namespace polysketch
