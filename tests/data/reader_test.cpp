// SPDX-License-Identifier: Apache-2.0
// Bad input: every row of the table of data faults gets its line and its code, under both policies.
#include <arrow/array/array_nested.h>
#include <arrow/array/builder_dict.h>
#include <arrow/array/builder_nested.h>
#include <arrow/array/builder_primitive.h>
#include <parquet/column_writer.h>
#include <parquet/file_writer.h>
#include <sys/resource.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "data/corpus_files.hpp"
#include "data/json_member.hpp"

namespace polysketch {
namespace {

using test::corpus_config;
using test::expect_error;
using test::gzip;
using test::TemporaryFolder;
using test::texts_of;
using test::write_text;

struct Outcome {
  std::vector<std::string> texts;
  BadRecords::Counts counts;
};

/// What policy `skip` leaves of a corpus of one file.
Outcome skip_through(const std::string& corpus_name, const TemporaryFolder& folder) {
  auto config = corpus_config(corpus_name, folder.path());
  config.on_error = OnError::skip;
  config.max_bad_fraction = 1;
  const Corpus corpus = Corpus::open(config);
  Outcome outcome;
  for (auto& document : test::read_all(corpus, Split::train))
    outcome.texts.push_back(std::move(document.text));
  outcome.counts = corpus.bad_records().counts();
  return outcome;
}

struct BadLine {
  std::string line, cause;
};

const std::vector<BadLine> kBadLines = {
    {"{\"text\": \"unfinished", "not valid JSON"},
    {"{\"text\": \"a\"} trailing", "not valid JSON"},
    {"{\"text\": \"a\",}", "not valid JSON"},
    {"{\"text\": \"a\" \"b\": 1}", "not valid JSON"},
    {"{\"text\": \"a\", \"n\": 01}", "not valid JSON"},
    {"{\"text\": \"a\", \"n\": nul}", "not valid JSON"},
    {"{\"text\": \"tab\there\"}", "not valid JSON"},
    {"{\"text\": \"bad \\q escape\"}", "not valid JSON"},
    {"{\"text\": \"a\", \"n\": -Inf}", "not valid JSON"},
    {"{\"text\": \"a\"},", "not valid JSON"},
    {std::string("{\"text\": \"a\", \"deep\": ") + std::string(5000, '[') + std::string(5000, ']') +
         "}",
     "not valid JSON"},
    {"[\"text\"]", "a JSON array, not a JSON object"},
    {"\"text\"", "not a JSON object"},
    {"{\"body\": \"a\"}", "no field 'text'"},
    {"{\"inner\": {\"text\": \"a\"}}", "no field 'text'"},
    {"{\"text\": 17}", "field 'text' is a number, not a string"},
    {"{\"text\": true}", "field 'text' is a boolean, not a string"},
    {"{\"text\": {\"text\": \"a\"}}", "field 'text' is an object, not a string"},
    {"{\"text\": [\"a\", \"b\"]}", "field 'text' is an array, not a string"},
    {"{\"text\": \"a\", \"text\": \"b\"}", "field 'text' appears twice"},
    {"{\"text\": \"bad \xC3\x28 bytes\"}", "invalid UTF-8"},
    {"{\"text\": \"overlong \xC0\xAF\"}", "invalid UTF-8"},
    {"{\"text\": \"high \\ud83d alone\"}", "a lone surrogate escape"},
    {"{\"text\": \"low \\ude00 alone\"}", "a lone surrogate escape"},
    {"{\"text\": \"nul \\u0000 here\"}", "a NUL character"},
};

TEST(JsonLines, EveryBadLineIsNamedWithFileRecordAndByte) {
  for (const auto& bad : kBadLines) {
    SCOPED_TRACE(bad.line);
    TemporaryFolder folder;
    write_text(folder / "train.jsonl",
               "{\"text\": \"good\"}\n" + bad.line + "\n{\"text\": \"also good\"}\n");
    expect_error(ExitCode::bad_data,
                 {"train.jsonl: record 1, byte 17: ", bad.cause, "data.on_error"},
                 [&] { texts_of(corpus_config("jsonl", folder.path()), Split::train); });
    const Outcome outcome = skip_through("jsonl", folder);
    EXPECT_EQ(outcome.texts, (std::vector<std::string>{"good", "also good"}));
    EXPECT_EQ(outcome.counts.bad, 1);
    EXPECT_EQ(outcome.counts.good, 2);
    EXPECT_EQ(outcome.counts.by_cause.count(bad.cause), 1U);
  }
}

TEST(JsonLines, MembersThatNobodyAsksForMayHoldAnything) {
  const std::string deep = std::string(500, '[') + std::string(500, ']');
  const std::vector<std::string> others = {
      R"("a": null)",
      R"("a": true, "b": false)",
      R"("a": 123456789012345678901234567890.5e-400)",
      R"("a": NaN, "b": Infinity, "c": -Infinity)",
      R"("a": {"text": "not this one", "b": [{"text": "nor this"}]})",
      R"("a": 1, "a": "again")",
      R"("a": "lone \ud83d surrogate", "\udead": 1)",
      "\"a\": \"bytes \xFF of Latin-1\"",
      R"("": "no name", "te\nxt": "another name")",
      "\"a\": " + deep,
  };
  std::string lines;
  std::vector<std::string> wanted;
  for (size_t i = 0; i < others.size(); ++i) {
    const std::string text = "text " + std::to_string(i);
    const std::string member = (i % 2 == 0 ? "\"text\": \"" : "\"t\\u0065xt\" : \"") + text + "\"";
    lines += "{" + others[i] + ", " + member + "}\n{" + member + ", " + others[i] + "}\n";
    wanted.insert(wanted.end(), {text, text});
  }
  TemporaryFolder folder;
  write_text(folder / "train.jsonl", lines);
  EXPECT_EQ(texts_of(corpus_config("jsonl", folder.path()), Split::train), wanted);
}

TEST(JsonLines, WhatWritersOfLinesReallyProduce) {
  const std::string mark = "\xEF\xBB\xBF", one = "{\"text\": \"one\"}", two = "{\"text\":\"two\"}";
  const std::vector<std::string> want = {"one", "two"};
  for (const auto& content :
       {mark + one + "\n" + two + "\n", mark + one + "\r\n" + two, one + "\n" + mark + two,
        "\n" + one + "\n\r\n \t\n" + two + "\n\n", mark + "\n" + one + "\n" + two,
        one + "\n" + two + "\n" + mark, "  " + one + "  \n\t" + two}) {
    SCOPED_TRACE(content);
    for (const bool packed : {false, true}) {
      TemporaryFolder folder;
      write_text(folder / (packed ? "train.jsonl.gz" : "train.jsonl"),
                 packed ? gzip(content) : content);
      const Outcome outcome = skip_through("jsonl", folder);
      EXPECT_EQ(outcome.texts, want);
      EXPECT_EQ(outcome.counts.bad, 0);
    }
  }
}

TEST(JsonLines, AFileThatIsNoneIsRefusedAsAWhole) {
  const std::string object = "{\"text\": \"one\"}";
  for (const auto& content :
       {"[" + object + ", " + object + "]", "[\n  " + object + ",\n  " + object + "\n]\n",
        std::string("\n[ {\n\"text\": \"one\"}]"), std::string("{\n  \"text\": \"one\"\n}\n"),
        std::string("\xEF\xBB\xBF{\r\n  \"text\": \"one\"\r\n}\r\n")}) {
    SCOPED_TRACE(content);
    TemporaryFolder folder;
    write_text(folder / "train.jsonl", content);
    expect_error(ExitCode::bad_data, {"train.jsonl: a JSON ", "not JSON lines", "jq -c"},
                 [&] { texts_of(corpus_config("jsonl", folder.path()), Split::train); });
    expect_error(ExitCode::bad_data, {"not JSON lines"}, [&] { skip_through("jsonl", folder); });
  }
}

/// A text in another encoding, with its byte order mark.
std::string encoded(const std::string& ascii, int width, bool big_endian) {
  std::string out;
  for (const uint32_t c : std::u32string(U"\xFEFF") + std::u32string(ascii.begin(), ascii.end())) {
    for (int i = 0; i < width; ++i)
      out += static_cast<char>(c >> (8 * (big_endian ? width - 1 - i : i)) & 0xFF);
  }
  return out;
}

TEST(ByteOrderMarks, OtherEncodingsAreNamedWithHowToConvert) {
  for (const int width : {2, 4}) {
    for (const bool big : {false, true}) {
      const std::string name = "UTF-" + std::to_string(8 * width);
      const std::string endian = big ? "big endian" : "little endian";
      SCOPED_TRACE(name + " " + endian);
      const std::string lines = encoded("{\"text\": \"one\"}\n{\"text\": \"two\"}\n", width, big);
      for (const bool packed : {false, true}) {
        TemporaryFolder folder;
        write_text(folder / "j" / (packed ? "train.jsonl.gz" : "train.jsonl"),
                   packed ? gzip(lines) : lines);
        const auto config = corpus_config("jsonl", folder / "j");
        expect_error(ExitCode::bad_data,
                     {"train.jsonl", name, endian, "iconv -f " + name + " -t UTF-8"},
                     [&] { texts_of(config, Split::train); });
      }
      // A whole text is one record, so that a single file of many can be skipped; also one that
      // would come in parts.
      TemporaryFolder folder;
      write_text(folder / "train" / "a.txt", encoded(std::string(9000, 'x'), width, big));
      write_text(folder / "train" / "b.txt", "\xEF\xBB\xBFgood");
      auto config = corpus_config("text", folder.path());
      config.max_document_bytes = 1000;
      expect_error(ExitCode::bad_data,
                   {"a.txt: record 0", name, endian, "iconv -f " + name + " -t UTF-8"},
                   [&] { texts_of(config, Split::train); });
      config.on_error = OnError::skip;
      config.max_bad_fraction = 1;
      const Corpus corpus = Corpus::open(config);
      const auto documents = test::read_all(corpus, Split::train);
      ASSERT_EQ(documents.size(), 1U);
      EXPECT_EQ(documents.front().text, "good");
      EXPECT_EQ(corpus.bad_records().counts().bad, 1);
    }
  }
}

TEST(JsonLines, AgreesWithAnIndependentParserOnHostileLines) {
  // Every cut and every single changed byte of a line with all kinds of tokens: accepted by both or
  // by none, with the same text.
  const std::string line =
      R"({"a": [1, -2.5e+3, true, null, {"x": "\u00e9"}], "text": "t\"\\\/\b\f\n\r\t\ud83d\ude00é", "z": false})";
  std::vector<std::string> lines;
  for (size_t i = 0; i <= line.size(); ++i) lines.push_back(line.substr(0, i));
  for (size_t i = 0; i < line.size(); ++i) {
    for (const char c : std::string_view("\"\\{}[],:0x n\x01\x7F")) {
      lines.push_back(line);
      lines.back()[i] = c;
    }
  }
  int accepted = 0;
  for (const auto& candidate : lines) {
    const auto json = nlohmann::json::parse(candidate, nullptr, false);
    const bool good = !json.is_discarded() && json.is_object() && json.contains("text") &&
                      json["text"].is_string();
    std::string text;
    const std::string error = extract_string_member(candidate, "text", text).error;
    const bool twice = error.find("appears twice") != std::string::npos;
    const bool deliberate = twice || nlohmann::json::accept(candidate) != good;
    // UTF-8 is checked elsewhere, so a line that only breaks it is skipped here.
    bool ascii_broken = false;
    for (size_t i = 0; i + 1 < candidate.size(); ++i)
      ascii_broken |= (candidate[i] == '\xC3') != (candidate[i + 1] == '\xA9');
    if (ascii_broken || deliberate || (!candidate.empty() && candidate.back() == '\xC3')) continue;
    EXPECT_EQ(error.empty(), good) << candidate << " -> " << error;
    if (good && error.empty()) {
      EXPECT_EQ(text, json["text"].get<std::string>());
      ++accepted;
    }
  }
  EXPECT_GT(accepted, 50);
}

TEST(JsonLines, SamplesOfWhatWasSkippedHoldNoText) {
  TemporaryFolder folder;
  write_text(folder / "train.jsonl", "{\"text\": \"good\"}\n{\"secret\": \"do not show\"}\n");
  auto config = corpus_config("jsonl", folder.path());
  config.on_error = OnError::skip;
  config.max_bad_fraction = 1;
  const Corpus corpus = Corpus::open(config);
  corpus.bad_records().write_samples_to((folder / "bad_records.jsonl").string());
  test::read_all(corpus, Split::train);
  const auto sample = nlohmann::json::parse(test::read_text(folder / "bad_records.jsonl"));
  EXPECT_EQ(sample["record"], 1);
  EXPECT_EQ(sample["offset"], 17);
  EXPECT_EQ(sample["cause"], "no field 'text'");
  EXPECT_EQ(sample.dump().find("do not show"), std::string::npos);
}

TEST(BadRecordLimits, TooManyOfAllAndTooManyInARow) {
  TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 400; ++i) lines += i % 10 == 0 ? "{}\n" : "{\"text\": \"good\"}\n";
  write_text(folder / "train.jsonl", lines);
  auto config = corpus_config("jsonl", folder.path());
  config.on_error = OnError::skip;
  config.max_bad_fraction = 0.05;
  expect_error(ExitCode::bad_data,
               {"0.05", "data.max_bad_fraction", "no field 'text' (", "train.jsonl ("},
               [&] { texts_of(config, Split::train); });
  config.max_bad_fraction = 0.11;
  config.max_bad_in_a_row = 1;  // none stand in a row
  EXPECT_EQ(texts_of(config, Split::train).size(), 360U);
  write_text(folder / "train.jsonl", "{\"text\": \"good\"}\n{}\n{}\n{}\n{}\n");
  config.max_bad_fraction = 1;
  config.max_bad_in_a_row = 3;
  expect_error(ExitCode::bad_data, {"3", "data.max_bad_in_a_row"},
               [&] { texts_of(config, Split::train); });
}

TEST(BadRecordLimits, OneBadRecordAmongTheFirstIsNotTooMany) {
  BadRecords bad(OnError::skip, 0.001, 100);
  bad.report("f", 0, 0, "x");
  EXPECT_THROW(bad.report("f", 1, 0, "x"), UserError);
}

TEST(EmptyDocuments, AreCountedAndNeverDocuments) {
  TemporaryFolder folder;
  write_text(folder / "train.jsonl",
             "{\"text\": \"\"}\n{\"text\": \" \\n\\t\"}\n{\"text\": null}\n{\"text\": \"a\"}\n");
  const Outcome outcome = skip_through("jsonl", folder);
  EXPECT_EQ(outcome.texts, std::vector<std::string>{"a"});
  EXPECT_EQ(outcome.counts.empty, 3);
  EXPECT_EQ(outcome.counts.empty_by_cause,
            (std::map<std::string, int64_t>{{"blank text", 2}, {"field 'text' is null", 1}}));
  EXPECT_EQ(texts_of(corpus_config("jsonl", folder.path()), Split::train),
            std::vector<std::string>{"a"});
  EXPECT_EQ(outcome.counts.bad, 0);
  write_text(folder / "train.jsonl", "");
  EXPECT_TRUE(skip_through("jsonl", folder).texts.empty());
}

TEST(Gzip, SeveralMembersAreOneStream) {
  TemporaryFolder folder;
  write_text(folder / "train.jsonl.gz",
             gzip("{\"text\": \"o") + gzip("") + gzip("ne\"}\n{\"text\": \"two\"}\n"));
  EXPECT_EQ(texts_of(corpus_config("jsonl", folder.path()), Split::train),
            (std::vector<std::string>{"one", "two"}));
}

TEST(Gzip, ZerosBehindAMemberArePadding) {
  for (const size_t zeros : {size_t{1}, size_t{500}, size_t{300'000}}) {
    TemporaryFolder folder;
    const std::string padding(zeros, '\0');
    write_text(folder / "train.jsonl.gz",
               gzip("{\"text\": \"one\"}\n") + padding + gzip("{\"text\": \"two\"}\n") + padding);
    EXPECT_EQ(texts_of(corpus_config("jsonl", folder.path()), Split::train),
              (std::vector<std::string>{"one", "two"}));
    write_text(folder / "train.jsonl.gz", gzip("{\"text\": \"one\"}\n") + padding + "x");
    expect_error(ExitCode::bad_data, {"train.jsonl.gz", "after the end"},
                 [&] { texts_of(corpus_config("jsonl", folder.path()), Split::train); });
  }
}

TEST(Gzip, DamageIsAnErrorUnderBothPolicies) {
  std::string lines;
  for (int i = 0; i < 5000; ++i)
    lines += "{\"text\": \"document " + std::to_string(i * 7919 % 104729) + "\"}\n";
  const std::string whole = gzip(lines);
  std::string flipped_crc = whole, flipped_length = whole, flipped_body = whole;
  flipped_crc[whole.size() - 6] ^= 1;
  flipped_length[whole.size() - 2] ^= 1;
  flipped_body[whole.size() / 2] ^= 4;
  std::vector<std::string> damaged = {flipped_crc, flipped_length,    flipped_body,
                                      "",          "not gzip at all", std::string(100, '\0')};
  for (const size_t cut : {size_t{1}, size_t{4}, size_t{8}, whole.size() / 2, whole.size() - 5})
    damaged.push_back(whole.substr(0, whole.size() - cut));
  for (size_t i = 0; i < damaged.size(); ++i) {
    SCOPED_TRACE(i);
    TemporaryFolder folder;
    write_text(folder / "train.jsonl.gz", damaged[i]);
    expect_error(ExitCode::bad_data, {"train.jsonl.gz", "gzip"},
                 [&] { texts_of(corpus_config("jsonl", folder.path()), Split::train); });
    expect_error(ExitCode::bad_data, {"train.jsonl.gz", "gzip"},
                 [&] { skip_through("jsonl", folder); });
  }
}

TEST(Gzip, TrailingGarbageIsAnErrorOrAWarning) {
  TemporaryFolder folder;
  write_text(folder / "train.jsonl.gz", gzip("{\"text\": \"one\"}\n") + "garbage");
  expect_error(ExitCode::bad_data, {"train.jsonl.gz", "after the end"},
               [&] { texts_of(corpus_config("jsonl", folder.path()), Split::train); });
  EXPECT_EQ(skip_through("jsonl", folder).texts, std::vector<std::string>{"one"});
}

int64_t peak_kilobytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(Gzip, ABombOfOneLineHitsTheLimitInLittleMemory) {
  TemporaryFolder folder;
  const std::string zeros(size_t{16} << 20, 'a');
  std::string bomb = gzip("{\"text\": \"");
  const std::string member = gzip(zeros, 1);
  for (int i = 0; i < 32; ++i) bomb += member;  // 512 MiB
  bomb += gzip("\"}\n{\"text\": \"after\"}\n");
  write_text(folder / "train.jsonl.gz", bomb);
  auto config = corpus_config("jsonl", folder.path());
  config.max_line_bytes = 1 << 20;
  const int64_t before = peak_kilobytes();
  expect_error(ExitCode::bad_data, {"longer than 1048576 bytes", "data.max_line_bytes"},
               [&] { texts_of(config, Split::train); });
  config.on_error = OnError::skip;
  EXPECT_EQ(texts_of(config, Split::train), std::vector<std::string>{"after"});
  EXPECT_LT(peak_kilobytes() - before, 65 * 1024);
}

TEST(PlainText, LongFilesComeInPartsThatJoinToTheWhole) {
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += "line " + std::to_string(i) + (i % 3 == 0 ? " with \xC3\xA9\n" : "\n");
  text += std::string(5000, 'x') + "\xE2\x82\xAC\xE2\x82\xAC" + std::string(3001, 'y');
  for (const char* kind : {"text", "jsonl"}) {
    for (const int64_t limit : {64, 1000, 1001, 4096}) {
      TemporaryFolder folder;
      const bool lines = std::string(kind) == "jsonl";
      write_text(folder / (lines ? "train/a.jsonl" : "train/a.txt"),
                 lines ? nlohmann::json{{"text", text}}.dump() : text);
      auto config = corpus_config(kind, folder.path());
      config.max_document_bytes = limit;
      const Corpus corpus = Corpus::open(config);
      std::string joined;
      size_t parts = 0, at_line_ends = 0;
      for (const auto& document : test::read_all(corpus, Split::train)) {
        EXPECT_LE(document.text.size(), static_cast<size_t>(limit));
        joined += document.text;
        at_line_ends += document.text.back() == '\n' ? 1 : 0;
        ++parts;
      }
      EXPECT_EQ(joined, text);
      EXPECT_GT(at_line_ends, parts / 3);
      EXPECT_EQ(corpus.bad_records().counts().split, 1);
    }
  }
}

TEST(PlainText, BrokenEncodingsAreBadDocuments) {
  for (const auto& text : {std::string("bad \xFF byte"), std::string("nul \0 here", 10),
                           std::string("surrogate \xED\xA0\x80")}) {
    TemporaryFolder folder;
    write_text(folder / "train" / "a.txt", text);
    write_text(folder / "train" / "b.txt", "\xEF\xBB\xBFgood");
    expect_error(ExitCode::bad_data, {"a.txt: record 0, byte 0"},
                 [&] { texts_of(corpus_config("text", folder.path()), Split::train); });
    EXPECT_EQ(skip_through("text", folder).texts, std::vector<std::string>{"good"});
  }
}

class TfRecordFile : public testing::Test {
 protected:
  void write(const std::string& content) {
    write_text(folder_ / "c4-train.tfrecord-00000-of-00001", content);
  }
  void expect_fatal(const std::string& cause) {
    expect_error(ExitCode::bad_data, {"c4-train.tfrecord-00000-of-00001", cause},
                 [&] { texts_of(corpus_config("c4", folder_.path()), Split::train); });
    expect_error(ExitCode::bad_data, {"c4-train.tfrecord-00000-of-00001", cause},
                 [&] { skip_through("c4", folder_); });
  }
  void expect_skippable(const std::string& record, const std::string& cause) {
    SCOPED_TRACE(cause);
    write(good_ + record + good_);
    const std::string place = "record 1, byte " + std::to_string(good_.size());
    expect_error(ExitCode::bad_data, {place, cause},
                 [&] { texts_of(corpus_config("c4", folder_.path()), Split::train); });
    const Outcome outcome = skip_through("c4", folder_);
    EXPECT_EQ(outcome.texts, (std::vector<std::string>{"a page", "a page"}));
    EXPECT_EQ(outcome.counts.by_cause.count(cause), 1U);
  }
  TemporaryFolder folder_;
  const std::string good_ = test::tfrecord(test::example({{"url", "u"}, {"text", "a page"}}));
};

TEST_F(TfRecordFile, BadRecordsAreNamed) {
  std::string damaged = good_;
  damaged[20] ^= 1;
  expect_skippable(damaged, "the CRC of the record's payload is wrong");
  expect_skippable(test::tfrecord("no protocol buffer"), "not a tf.train.Example");
  expect_skippable(test::tfrecord(test::example({{"url", "u"}})), "no feature 'text'");
  expect_skippable(
      test::tfrecord(test::wire_bytes(
          1, test::wire_bytes(1, test::wire_bytes(1, "text") +
                                     test::wire_bytes(2, test::wire_bytes(3, "\x01"))))),
      "feature 'text' is not a byte string");
  expect_skippable(test::tfrecord(test::example({{"text", "bad \xFF"}})), "invalid UTF-8");
}

TEST_F(TfRecordFile, FeaturesThatNobodyAsksForMayHoldAnything) {
  const auto feature = [](const std::string& name, const std::string& value) {
    return test::wire_bytes(1, test::wire_bytes(1, name) + test::wire_bytes(2, value));
  };
  const auto bytes = [](const std::string& value) {
    return test::wire_bytes(1, test::wire_bytes(1, value));
  };
  const std::string others =
      feature("floats", test::wire_bytes(2, test::wire_bytes(1, "12345678"))) +
      feature("integers", test::wire_bytes(3, test::wire_bytes(1, "\x01\x02"))) +
      feature("none", "") + feature("not UTF-8", bytes("\xFF\xFE")) +
      feature("several", test::wire_bytes(1, test::wire_bytes(1, "a") + test::wire_bytes(1, "b"))) +
      feature("of a newer kind", test::wire_bytes(9, "?"));
  const std::string text = feature("text", bytes("a page"));
  // Unknown fields of the message itself are passed over as well.
  write(test::tfrecord(test::wire_bytes(1, others + text) + test::wire_bytes(7, "newer")) +
        test::tfrecord(test::wire_bytes(1, text + others)) +
        test::tfrecord(test::wire_bytes(1, others) + test::wire_bytes(1, text)));
  EXPECT_EQ(texts_of(corpus_config("c4", folder_.path()), Split::train),
            (std::vector<std::string>(3, "a page")));
}

TEST_F(TfRecordFile, ATextWithoutValueIsEmptyAndOneWithSeveralIsBad) {
  const auto with_text = [](const std::string& feature) {
    return test::tfrecord(test::wire_bytes(
        1, test::wire_bytes(1, test::wire_bytes(1, "text") + test::wire_bytes(2, feature))));
  };
  write(good_ + with_text("") + with_text(test::wire_bytes(1, "")) + good_);
  EXPECT_EQ(texts_of(corpus_config("c4", folder_.path()), Split::train).size(), 2U);
  EXPECT_EQ(skip_through("c4", folder_).counts.empty_by_cause.at("feature 'text' has no value"), 2);
  expect_skippable(
      with_text(test::wire_bytes(1, test::wire_bytes(1, "a") + test::wire_bytes(1, "b"))),
      "feature 'text' has several values");
  expect_skippable(test::tfrecord(test::wire_bytes(1, "") + test::wire_bytes(2, "")),
                   "a tf.train.SequenceExample, where only tf.train.Example is read");
}

TEST_F(TfRecordFile, EveryTruncationAndADamagedLengthAreFatal) {
  for (size_t size = good_.size() + 1; size < 2 * good_.size(); ++size) {
    write((good_ + good_).substr(0, size));
    expect_error(ExitCode::bad_data, {"record 1", "truncated"},
                 [&] { texts_of(corpus_config("c4", folder_.path()), Split::train); });
  }
  expect_fatal("truncated");
  std::string damaged = good_;
  damaged[1] ^= 1;
  write(damaged);
  expect_fatal("CRC of a record's length");
}

TEST(Parquet, MissingAndWrongColumnsListWhatThereIs) {
  TemporaryFolder folder;
  test::write_parquet(folder / "train-0.parquet", "body", {{"a"}});
  expect_error(ExitCode::bad_data,
               {"train-0.parquet", "no column 'text'", "id string, body string"},
               [&] { texts_of(corpus_config("c4", folder.path()), Split::train); });
  expect_error(ExitCode::bad_data, {"no column 'text'"}, [&] { skip_through("c4", folder); });
}

TEST(Parquet, NullsAreEmptyRecords) {
  TemporaryFolder folder;
  test::write_parquet(folder / "train-0.parquet", "text",
                      {std::nullopt, {"a"}, std::nullopt, std::nullopt, {"b"}, {" "}}, 2);
  EXPECT_EQ(texts_of(corpus_config("c4", folder.path()), Split::train),
            (std::vector<std::string>{"a", "b"}));
  const Outcome outcome = skip_through("c4", folder);
  EXPECT_EQ(outcome.counts.bad, 0);
  EXPECT_EQ(outcome.counts.empty_by_cause,
            (std::map<std::string, int64_t>{{"blank text", 1}, {"column 'text' is null", 3}}));
}

void write_table(const std::filesystem::path& path, const std::vector<std::string>& names,
                 const std::vector<std::shared_ptr<arrow::Array>>& columns, int64_t rows_per_group,
                 bool dictionary) {
  arrow::FieldVector fields;
  for (size_t i = 0; i < names.size(); ++i)
    fields.push_back(arrow::field(names[i], columns[i]->type()));
  std::filesystem::create_directories(path.parent_path());
  const auto file = arrow::io::FileOutputStream::Open(path.string()).ValueOrDie();
  parquet::WriterProperties::Builder properties;
  properties.data_pagesize(64);  // so that a group has many pages
  if (!dictionary) properties.disable_dictionary();
  // With Arrow's own schema in the file, which says "large string" and the like.
  const auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
  const auto status = parquet::arrow::WriteTable(
      *arrow::Table::Make(arrow::schema(fields), columns), arrow::default_memory_pool(), file,
      rows_per_group, properties.build(), arrow_properties);
  ASSERT_TRUE(status.ok()) << status.ToString();
  ASSERT_TRUE(file->Close().ok());
}

template <class Builder>
std::shared_ptr<arrow::Array> array_of(const std::vector<std::string>& texts) {
  Builder builder;
  for (const auto& text : texts) EXPECT_TRUE(builder.Append(text).ok());
  return builder.Finish().ValueOrDie();
}

TEST(Parquet, EveryKindOfString) {
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i)
    texts.push_back("document " + std::to_string(i % 50) +
                    std::string(static_cast<size_t>(i), 'x'));
  const std::vector<std::pair<std::string, std::shared_ptr<arrow::Array>>> kinds = {
      {"string", array_of<arrow::StringBuilder>(texts)},
      {"binary", array_of<arrow::BinaryBuilder>(texts)},
      {"large string", array_of<arrow::LargeStringBuilder>(texts)},
      {"large binary", array_of<arrow::LargeBinaryBuilder>(texts)},
      {"string view", array_of<arrow::StringViewBuilder>(texts)},
      {"binary view", array_of<arrow::BinaryViewBuilder>(texts)},
      {"dictionary", array_of<arrow::StringDictionaryBuilder>(texts)},
  };
  for (const auto& [kind, column] : kinds) {
    for (const bool dictionary : {false, true}) {
      for (const int64_t rows : {int64_t{1000}, int64_t{7}}) {
        SCOPED_TRACE(kind + " in groups of " + std::to_string(rows));
        TemporaryFolder folder;
        write_table(folder / "train-0.parquet", {"text"}, {column}, rows, dictionary);
        EXPECT_EQ(texts_of(corpus_config("c4", folder.path()), Split::train), texts);
      }
    }
  }
}

/// One row with a column that Arrow has no type for and a text column of this repetition, between
/// groups without rows.
void write_below_arrow(const std::filesystem::path& path, parquet::Repetition::type repetition) {
  using parquet::schema::GroupNode;
  using parquet::schema::PrimitiveNode;
  const auto schema = std::static_pointer_cast<GroupNode>(
      GroupNode::Make("schema", parquet::Repetition::REQUIRED,
                      {PrimitiveNode::Make("span", parquet::Repetition::REQUIRED,
                                           parquet::Type::FIXED_LEN_BYTE_ARRAY,
                                           parquet::ConvertedType::INTERVAL, 12),
                       PrimitiveNode::Make("text", repetition, parquet::Type::BYTE_ARRAY,
                                           parquet::ConvertedType::NONE)}));
  const auto file = arrow::io::FileOutputStream::Open(path.string()).ValueOrDie();
  const auto writer = parquet::ParquetFileWriter::Open(file, schema);
  for (const bool filled : {false, true, false}) {
    auto* group = writer->AppendRowGroup();
    const std::string span(12, 'x');
    const parquet::FixedLenByteArray value(reinterpret_cast<const uint8_t*>(span.data()));
    auto* spans = static_cast<parquet::FixedLenByteArrayWriter*>(group->NextColumn());
    if (filled) spans->WriteBatch(1, nullptr, nullptr, &value);
    spans->Close();
    const parquet::ByteArray words("some words");
    const int16_t definition = 1, first = 0;
    auto* column = static_cast<parquet::ByteArrayWriter*>(group->NextColumn());
    if (filled) column->WriteBatch(1, &definition, &first, &words);
    column->Close();
    group->Close();
  }
  writer->Close();
  ASSERT_TRUE(file->Close().ok());
}

TEST(Parquet, OtherColumnsAreNotLookedAt) {
  // A nested column with a member of the same name, and one that Arrow has no type for.
  const auto text = array_of<arrow::StringBuilder>({"one", "two"});
  const auto nested =
      arrow::StructArray::Make({text}, std::vector<std::string>{"text"}).ValueOrDie();
  TemporaryFolder folder;
  write_table(folder / "train-0.parquet", {"nested", "text"}, {nested, text}, 10, true);
  EXPECT_EQ(texts_of(corpus_config("c4", folder.path()), Split::train),
            (std::vector<std::string>{"one", "two"}));

  for (const auto repetition : {parquet::Repetition::OPTIONAL, parquet::Repetition::REQUIRED}) {
    TemporaryFolder other;
    write_below_arrow(other / "train-0.parquet", repetition);
    EXPECT_EQ(texts_of(corpus_config("c4", other.path()), Split::train),
              std::vector<std::string>{"some words"});
  }
  TemporaryFolder repeated;
  write_below_arrow(repeated / "train-0.parquet", parquet::Repetition::REPEATED);
  expect_error(ExitCode::bad_data, {"no text in column 'text'", "span interval, text repeated"},
               [&] { texts_of(corpus_config("c4", repeated.path()), Split::train); });
}

TEST(Parquet, AFileWithoutRowsIsEmpty) {
  TemporaryFolder folder;
  test::write_parquet(folder / "train-0.parquet", "text", {});
  test::write_parquet(folder / "train-1.parquet", "text", {{"a"}});
  EXPECT_EQ(texts_of(corpus_config("c4", folder.path()), Split::train),
            std::vector<std::string>{"a"});
}

TEST(Parquet, WhatIsNoTextSaysOfWhichTypeItIs) {
  const auto text = array_of<arrow::StringBuilder>({"one"});
  arrow::ListBuilder lists(arrow::default_memory_pool(), std::make_shared<arrow::StringBuilder>());
  ASSERT_TRUE(lists.Append().ok());
  ASSERT_TRUE(static_cast<arrow::StringBuilder*>(lists.value_builder())->Append("one").ok());
  arrow::Int32Builder numbers;
  ASSERT_TRUE(numbers.Append(1).ok());
  const std::vector<std::pair<std::string, std::shared_ptr<arrow::Array>>> columns = {
      {"list", lists.Finish().ValueOrDie()},
      {"int32", numbers.Finish().ValueOrDie()},
      {"struct", arrow::StructArray::Make({text}, std::vector<std::string>{"text"}).ValueOrDie()}};
  for (const auto& [type, column] : columns) {
    TemporaryFolder folder;
    write_table(folder / "train-0.parquet", {"text", "id"}, {column, text}, 10, true);
    expect_error(ExitCode::bad_data, {"no text in column 'text'", "text " + type + ", id string"},
                 [&] { texts_of(corpus_config("c4", folder.path()), Split::train); });
  }
}

TEST(Parquet, DamageIsFoundOrHarmless) {
  TemporaryFolder folder;
  std::vector<std::optional<std::string>> values;
  for (int i = 0; i < 50; ++i)
    values.emplace_back("document number " + std::to_string(i * 7919 % 1000));
  const auto path = folder / "train-0.parquet";
  test::write_parquet(path, "text", values);
  const std::string whole = test::read_text(path);
  const auto good = texts_of(corpus_config("c4", folder.path()), Split::train);
  ASSERT_EQ(good.size(), 50U);
  int found = 0;
  for (size_t at = 0; at < whole.size(); at += 13) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    write_text(path, damaged);
    try {
      // Some bytes (statistics, the other column) do not concern the text; whatever is read must be
      // the text.
      const auto texts = texts_of(corpus_config("c4", folder.path()), Split::train);
      for (const auto& text : texts)
        EXPECT_NE(std::find(good.begin(), good.end(), text), good.end()) << "damaged byte " << at;
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
      ++found;
    }
  }
  EXPECT_GT(found, 20);
  for (const size_t cut : {size_t{0}, size_t{3}, whole.size() / 2, whole.size() - 1}) {
    write_text(path, whole.substr(0, cut));
    expect_error(ExitCode::bad_data, {"train-0.parquet"},
                 [&] { texts_of(corpus_config("c4", folder.path()), Split::train); });
  }
}

}  // namespace
}  // namespace polysketch
