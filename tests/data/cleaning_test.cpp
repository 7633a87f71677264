// SPDX-License-Identifier: Apache-2.0
#include "data/cleaning.hpp"

#include <gtest/gtest.h>

namespace polysketch {
namespace {

const std::string kArticle =
    "\n_START_ARTICLE_\nTitle\n_START_PARAGRAPH_\nOne._NEWLINE_Two.\n_START_SECTION_\nHeading\n_"
    "START_PARAGRAPH_\nThree.";

TEST(Cleaning, NoneLeavesTheMarkup) {
  EXPECT_EQ(clean_wiki_markup(kArticle, Cleaning::none), kArticle);
}

TEST(Cleaning, PlainKeepsTheBodies) {
  EXPECT_EQ(clean_wiki_markup(kArticle, Cleaning::plain), "One.\nTwo.\n\nThree.");
}

TEST(Cleaning, MarkersLoseTheLineEndsAroundThem) {
  EXPECT_EQ(clean_wiki_markup(kArticle, Cleaning::markers),
            "_START_ARTICLE_Title_START_PARAGRAPH_One._NEWLINE_Two._START_SECTION_Heading_START_"
            "PARAGRAPH_Three.");
}

TEST(Cleaning, OnlyWholeLinesAreMarkers) {
  const std::string text =
      "\n_START_PARAGRAPH_\nThe word _START_ARTICLE_ in a text\nand a second line";
  EXPECT_EQ(clean_wiki_markup(text, Cleaning::plain),
            "The word _START_ARTICLE_ in a text\nand a second line");
  EXPECT_EQ(clean_wiki_markup(text, Cleaning::markers),
            "_START_PARAGRAPH_The word _START_ARTICLE_ in a text\nand a second line");
}

TEST(Cleaning, TextWithoutMarkupSurvives) {
  for (const auto mode : {Cleaning::none, Cleaning::plain, Cleaning::markers}) {
    EXPECT_EQ(clean_wiki_markup("plain text\nsecond line", mode), "plain text\nsecond line");
    EXPECT_EQ(clean_wiki_markup("", mode), "");
  }
}

TEST(BytesLiteral, IsUnescaped) {
  EXPECT_EQ(repair_bytes_literal(R"(b'a\nb\tc\\d\'e\xe2\x80\x93f')"),
            "a\nb\tc\\d'e\xE2\x80\x93"
            "f");
  EXPECT_EQ(repair_bytes_literal(R"(b"it's")"), "it's");
}

TEST(BytesLiteral, AnythingElseIsLeftAlone) {
  for (const std::string text :
       {"", "b", "b'", "b'no end", "b\"mixed'", "b'it's'", R"(b'bad \q escape')", R"(b'short \x4')",
        "b'real\nline'", " b'x'", "bold 'text'"}) {
    EXPECT_EQ(repair_bytes_literal(text), text);
  }
}

}  // namespace
}  // namespace polysketch
