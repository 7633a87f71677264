// SPDX-License-Identifier: Apache-2.0
// Files as people have them: links, marks, other files beside the text; and what the program says
// of those that it leaves out.
#include <gmock/gmock.h>

#include "acceptance/workplace.hpp"
#include "data/corpus_files.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class Reading : public testing::Test {
 protected:
  /// `data inspect` of the training split below `root`.
  ProcessResult inspect(const std::string& corpus, const fs::path& root,
                        const Words& settings = {}) const {
    Words words{"data",
                "inspect",
                workplace().config().string(),
                "--split",
                "train",
                "--json",
                "--set",
                "data.corpus=" + corpus,
                "--set",
                "data.root=" + root.string(),
                "--set",
                "data.cache=" + (folder_ / "cache").string()};
    for (const auto& setting : settings) {
      words.push_back("--set");
      words.push_back(setting);
    }
    return polysketch(words);
  }
  static Row train_split(const ProcessResult& result) {
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? Row::parse(result.out).at("splits").at("train") : Row();
  }
  static std::string book() { return read_text(workplace().corpus() / "train/one.txt"); }

  TemporaryFolder folder_;
};

TEST_F(Reading, TheCacheOfAModelHub) {
  const fs::path snapshot = folder_ / "hub/snapshots/rev";
  write_text(folder_ / "hub/blobs/f00", book());
  fs::create_directories(snapshot / "train");
  fs::create_symlink("../../../blobs/f00", snapshot / "train/1.txt");
  EXPECT_EQ(train_split(inspect("text", snapshot)).at("file_bytes"), book().size());
  const ProcessResult above = inspect("text", folder_ / "hub");
  EXPECT_EQ(above.exit_code, 66);
  EXPECT_THAT(above.err, HasSubstr("set data.root to " + snapshot.string()));
}

TEST_F(Reading, AByteOrderMarkCostsNoRecord) {
  std::string lines = "\xEF\xBB\xBF";
  for (int i = 0; i < 9; ++i)
    lines += fmt::format(R"({{"text": "the river rose for the {} time"}})", i) + "\r\n";
  write_text(folder_ / "train/a.jsonl", lines);
  for (const char* policy : {"error", "skip"}) {
    const ProcessResult result =
        inspect("jsonl", folder_.path(), {std::string("data.on_error=") + policy});
    EXPECT_EQ(train_split(result).at("documents"), 9);
    EXPECT_EQ(train_split(result).at("skipped_records"), 0);
  }
  // The same mark in a configuration.
  write_text(folder_ / "run.yaml", "\xEF\xBB\xBF" + workplace().yaml());
  const ProcessResult check = polysketch({"config", "check", (folder_ / "run.yaml").string()});
  EXPECT_EQ(check.exit_code, 0) << check.err;
}

TEST_F(Reading, OtherFilesBesideTheTextAreNamedOnce) {
  write_text(folder_ / "train/1.txt", book());
  write_text(folder_ / "train/sub/2.TXT", "More text of the same kind.\n");
  write_text(folder_ / "train/._1.txt", std::string("\0\5\26\7", 4));
  write_text(folder_ / "train/.draft.txt", "half a draft");
  fs::create_symlink("user@host.1:2", folder_ / "train/.#1.txt");
  write_text(folder_ / "train/notes.md", "notes");
  write_text(folder_ / "train/3.txt.xz", "packed");
  const ProcessResult result = inspect("text", folder_.path());
  const Row split = train_split(result);
  EXPECT_EQ(split.at("files"), 2);
  EXPECT_EQ(split.at("format"), "text");
  EXPECT_EQ(split.at("left_out").size(), 2u);
  EXPECT_THAT(result.err, HasSubstr("warning: "));
  EXPECT_THAT(result.err, HasSubstr("train/notes.md"));
  EXPECT_THAT(result.err, HasSubstr("train/3.txt.xz"));
  EXPECT_THAT(result.err, Not(HasSubstr("draft")));
  EXPECT_EQ(result.err.find("notes.md"), result.err.rfind("notes.md")) << result.err;
}

TEST_F(Reading, RecordsWithoutTextAreCountedByCause) {
  write_text(folder_ / "train/a.jsonl",
             "{\"text\": null}\n{\"text\": \"some words\"}\n{\"text\": \" \"}\n");
  const ProcessResult result = inspect("jsonl", folder_.path());
  EXPECT_EQ(train_split(result).at("skipped_records"), 2);
  const Row counts = Row::parse(result.out).at("bad_records");
  EXPECT_EQ(counts.at("bad"), 0);
  EXPECT_EQ(counts.at("empty_by_cause").at("field 'text' is null"), 1);
  EXPECT_EQ(counts.at("empty_by_cause").at("blank text"), 1);
}

TEST_F(Reading, ANameThatIsNotUtf8IsNoDefect) {
  write_text(folder_ / "train/a\xE9.txt", book());
  write_text(folder_ / "train/b\xFF.md", "notes");
  EXPECT_EQ(train_split(inspect("text", folder_.path())).at("files"), 1);
  const ProcessResult train = polysketch(
      {"tokenizer", "train", "--input", (folder_ / "train").string(), "--recipe", "bpe-bytes",
       "--vocab-size", "400", "--json", "--output", (folder_ / "tok.model").string()});
  EXPECT_EQ(train.exit_code, 0) << train.err;
}

TEST_F(Reading, ATokenizerDoesNotLearnFromItself) {
  write_text(folder_ / "data/one.txt", book());
  const auto train = [&](const std::string& recipe, const std::string& output) {
    return polysketch({"tokenizer", "train", "--input", (folder_ / "data").string(), "--recipe",
                       recipe, "--vocab-size", recipe == "paper" ? "200" : "400", "--output",
                       (folder_ / "data" / output).string()});
  };
  std::string first;
  for (const char* output : {"tok.model", "tok.model", "odd.txt", "odd.txt", "tok"}) {
    const ProcessResult result = train("bpe-bytes", output);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, HasSubstr("1 documents of 1 files"));
    if (first.empty()) first = read_text(folder_ / "data/tok.model");
    EXPECT_EQ(read_text(folder_ / "data" / output), first);
  }
  const ProcessResult again = train("bpe-bytes", "tok.model");
  EXPECT_THAT(again.err, HasSubstr("not read: "));
  EXPECT_THAT(again.err, HasSubstr("tokenizer"));
  EXPECT_EQ(train("bpe-bytes", "one.txt").exit_code, 64) << "the text itself would be replaced";
  EXPECT_EQ(read_text(folder_ / "data/one.txt"), book());
  // One that is named by the user is read, and is no text.
  const ProcessResult named =
      polysketch({"tokenizer", "train", "--input", (folder_ / "data/tok.model.json").string(),
                  "--vocab-size", "400", "--output", (folder_ / "x.model").string()});
  EXPECT_EQ(named.exit_code, 65);
  EXPECT_THAT(named.err, HasSubstr("not JSON lines"));
}

TEST_F(Reading, ATokenizerSaysWhatItLoses) {
  const auto train = [&](const std::string& recipe) {
    return polysketch({"tokenizer", "train", "--input", (workplace().corpus() / "train").string(),
                       "--recipe", recipe, "--vocab-size", "400", "--output",
                       (folder_ / (recipe + ".model")).string()});
  };
  const ProcessResult paper = train("paper"), bytes = train("bpe-bytes");
  ASSERT_EQ(paper.exit_code, 0) << paper.err;
  EXPECT_THAT(paper.err, HasSubstr("line ends"));
  EXPECT_THAT(paper.err, HasSubstr("the recipe 'bpe-bytes' is lossless"));
  EXPECT_THAT(paper.out, HasSubstr("not lossless"));
  EXPECT_THAT(bytes.err, Not(HasSubstr("lossless")));
  EXPECT_THAT(bytes.out, HasSubstr(", lossless,"));
  const auto inspect_model = [&](const std::string& recipe) {
    return polysketch(
        {"tokenizer", "inspect", "--model", (folder_ / (recipe + ".model")).string(), "--json"});
  };
  EXPECT_EQ(Row::parse(inspect_model("paper").out).at("lossless"), false);
  EXPECT_GT(Row::parse(inspect_model("paper").out).at("losses").size(), 3u);
  EXPECT_EQ(Row::parse(inspect_model("bpe-bytes").out).at("lossless"), true);
}

TEST_F(Reading, TextGoesThroughALosslessTokenizerUnchanged) {
  const std::string text =
      "a\xE2\x96\x81"
      "b  \xE2\x96\x81 \xE2\x96\x81\xE2\x96\x81 c\t\r\nd ";
  const std::string model = workplace().tokenizer().string();
  const ProcessResult ids = polysketch({"tokenizer", "encode", "--model", model, "--ids", text});
  ASSERT_EQ(ids.exit_code, 0) << ids.err;
  Words decode{"tokenizer", "decode", "--model", model, "--ids"};
  std::istringstream words(ids.out);
  for (std::string word; words >> word;) decode.push_back(word);
  EXPECT_EQ(polysketch(decode).out, text);
}

TEST_F(Reading, PerplexityOfACorpusWithoutATestSplit) {
  fs::create_directories(folder_ / "data");
  for (const char* split : {"train", "validation"})
    fs::copy(workplace().corpus() / split, folder_ / "data" / split, fs::copy_options::recursive);
  workplace().train("without_test", {"data.root=" + (folder_ / "data").string(), "training.steps=4",
                                     "evaluation.every=0"});
  const std::string run = workplace().run("without_test").string();
  const ProcessResult measured =
      polysketch({"evaluate", "perplexity", run, "--tokens", "500", "--json"});
  ASSERT_EQ(measured.exit_code, 0) << measured.err;
  EXPECT_EQ(Row::parse(measured.out).at("split"), "validation");
  EXPECT_THAT(measured.err, HasSubstr("no test split: measuring the validation split"));
  const ProcessResult asked = polysketch({"evaluate", "perplexity", run, "--split", "test"});
  EXPECT_EQ(asked.exit_code, 66);
  EXPECT_THAT(asked.err, HasSubstr("no test split; it has train, validation"));
}

}  // namespace
}  // namespace polysketch::test
