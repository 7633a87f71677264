// SPDX-License-Identifier: Apache-2.0
// What a user gets wrong, and what the program then says: one line that names the place and the
// remedy, and the right exit code. With POLYSKETCH_ERRORS_TABLE=FILE the cases are also written
// there, one file a group, as rows of docs/errors.md.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>

#include "acceptance/workplace.hpp"
#include "data/corpus_files.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

/// One mistake. `make` brings it about in an empty folder and returns the arguments of the program.
struct Mistake {
  std::string name;
  int code;
  Words parts;  ///< must appear in the line
  std::function<Words(const fs::path&)> make;
};

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

std::string cell(std::string text) {
  text = replaced(replaced(replaced(std::move(text), "|", "\\|"), "<", "&lt;"), "\n", "<br>");
  return text;
}

class BadInput : public testing::Test {
 protected:
  void check(const std::string& group, const std::vector<Mistake>& mistakes) {
    std::string table =
        "\n## " + group + "\n\n| input | what is printed | exit code |\n| --- | --- | --- |\n";
    for (const Mistake& mistake : mistakes) {
      SCOPED_TRACE(mistake.name);
      TemporaryFolder folder;
      const ProcessResult result = polysketch(mistake.make(folder.path()));
      EXPECT_EQ(result.exit_code, mistake.code) << result.err;
      // Before the error the log may speak; the error itself is the last that is said.
      const std::string start = fmt::format("ERROR {}: ", mistake.code);
      const size_t at = result.err.starts_with(start) ? 0 : result.err.find("\n" + start);
      ASSERT_NE(at, std::string::npos) << result.err;
      const std::string said = result.err.substr(at == 0 ? 0 : at + 1);
      EXPECT_EQ(result.err.find("ERROR", at + 7), std::string::npos)
          << "more than one error: " << result.err;
      EXPECT_TRUE(said.ends_with('\n'));
      // all errors of a configuration, all bad checkpoints are listed, a line each
      if (mistake.code != 78 && mistake.code != 81) {
        EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
      }
      for (const auto& part : mistake.parts)
        EXPECT_NE(said.find(part), std::string::npos) << "'" << part << "' is not in: " << said;
      std::string shown =
          replaced(replaced(said.substr(0, said.size() - 1), folder.path().string() + "/", ""),
                   workplace().path().string() + "/", "");
      shown = replaced(shown, folder.path().string(), "FOLDER");
      table += fmt::format("| {} | {} | {} |\n", cell(mistake.name), cell(shown), mistake.code);
    }
    if (const char* file = std::getenv("POLYSKETCH_ERRORS_TABLE"))
      write_text(fmt::format("{}.{}.md", file, group), table);
  }

  /// A mistake in the text of a configuration file, met by `config check`.
  static Mistake config(std::string name, const std::string& text, Words parts) {
    return {std::move(name), 78, std::move(parts), [text](const fs::path& folder) {
              write_text(folder / "run.yaml", text);
              return Words{"config", "check", (folder / "run.yaml").string()};
            }};
  }

  /// Training of a few steps with settings that hold the mistake.
  static Words train(const fs::path& folder, Words settings) {
    settings.insert(settings.begin(), {"run.directory=" + (folder / "run").string(),
                                       "data.cache=" + (folder / "cache").string(),
                                       "training.steps=3", "evaluation.every=0"});
    Words words{"train", workplace().config().string()};
    for (const auto& setting : settings) {
      words.push_back("--set");
      words.push_back(setting);
    }
    return words;
  }

  /// Training on files that hold the mistake.
  static Mistake data(std::string name, int code, Words parts, const std::string& corpus,
                      std::function<void(const fs::path&)> write, Words settings = {}) {
    return {std::move(name), code, std::move(parts), [=](const fs::path& folder) {
              fs::create_directories(folder / "data");
              write(folder / "data");
              Words all{"data.corpus=" + corpus, "data.root=" + (folder / "data").string()};
              all.insert(all.end(), settings.begin(), settings.end());
              return train(folder, all);
            }};
  }

  static std::string good_lines(int count) {
    std::string lines;
    for (int i = 0; i < count; ++i)
      lines +=
          fmt::format(
              R"({{"text": "It was in the year {} that the first steamboat came up the river."}})",
              1800 + i) +
          "\n";
    return lines;
  }
  /// A file of JSON lines with one line in the middle that is not right.
  static Mistake line(std::string name, Words parts, const std::string& bad, Words settings = {},
                      int code = 65) {
    parts.push_back("a.jsonl");
    return data(
        std::move(name), code, std::move(parts), "jsonl",
        [bad](const fs::path& root) {
          write_text(root / "train/a.jsonl", good_lines(20) + bad + "\n" + good_lines(20));
        },
        std::move(settings));
  }
};

TEST_F(BadInput, CommandLine) {
  const std::string config = workplace().config().string();
  const auto says = [](const Words& words) { return [words](const fs::path&) { return words; }; };
  check(
      "Command line",
      {{"`polysketch`", 64, {"--help"}, says({})},
       {"`polysketch trian run.yaml`",
        64,
        {"unknown command 'trian'", "did you mean 'train'?"},
        says({"trian", "run.yaml"})},
       {"`plan run.yaml extra`",
        64,
        {"unexpected argument 'extra'", "plan --help"},
        says({"plan", config, "extra"})},
       {"`train` without a file", 64, {"config", "train --help"}, says({"train"})},
       {"`train run.yaml --stes 3`",
        64,
        {"unknown option '--stes'", "did you mean '--set'?"},
        says({"train", config, "--stes", "3"})},
       {"`--set` without a value", 64, {"--set: needs a value"}, says({"train", config, "--set"})},
       {"`generate RUN --seed 1 --seed 2`",
        64,
        {"--seed: given 2 times, want it once"},
        says({"generate", "run", "--seed", "1", "--seed", "2"})},
       {"`evaluate` without a measure", 64, {"evaluate --help"}, says({"evaluate"})},
       {"`generate RUN --temperature hot`",
        64,
        {"--temperature"},
        says({"generate", "run", "--temperature", "hot"})},
       {"`generate RUN --top-p 2`", 64, {"--top-p"}, says({"generate", "run", "--top-p", "2"})},
       {"`plan run.yaml --tokens-per-second fast`",
        64,
        {"--tokens-per-second", "fast"},
        says({"plan", config, "--tokens-per-second", "fast"})},
       {"`generate RUN --tokens 1e3.5`",
        64,
        {"--tokens", "'1e3.5'", "1 to"},
        says({"generate", "run", "--tokens", "1e3.5"})},
       {"`bench attention --lengths 64,`",
        64,
        {"--lengths", "got ''"},
        says({"bench", "attention", "--lengths", "64,"})},
       {"`launch --grace 30`",
        64,
        {"--grace", "'30'", "30s"},
        says({"launch", "--grace", "30", "--", "train", config})},
       {"`--output` in a folder that does not exist",
        73,
        {"--output", "missing does not exist", "make it first"},
        [](const fs::path& folder) {
          return Words{"tokenizer", "train",    "--input",
                       "text.txt",  "--output", (folder / "missing/t.model").string()};
        }},
       {"`--output` that is a folder",
        73,
        {"--output", "is a folder"},
        [](const fs::path& folder) {
          return Words{"tokenizer", "train", "--input", "text.txt", "--output", folder.string()};
        }},
       {"links that lead to each other",
        66,
        {"one.yaml", "symbolic links"},
        [](const fs::path& folder) {
          fs::create_symlink("two.yaml", folder / "one.yaml");
          fs::create_symlink("one.yaml", folder / "two.yaml");
          return Words{"train", (folder / "one.yaml").string()};
        }},
       {"a configuration file that does not exist",
        66,
        {"nothing.yaml"},
        says({"train", "nothing.yaml"})},
       {"a run that does not exist",
        66,
        {"runs/nothing"},
        says({"evaluate", "perplexity", "runs/nothing"})},
       {"a configuration where a run is wanted",
        64,
        {"tiny.yaml", "give a run folder"},
        says({"evaluate", "perplexity", config})},
       {"a folder where a configuration is wanted",
        64,
        {"give a configuration file"},
        [](const fs::path& folder) {
          return Words{"train", folder.string()};
        }},
       {"a folder without a checkpoint", 66, {"no checkpoint"}, [](const fs::path& folder) {
          return Words{"generate", folder.string()};
        }}});
}

TEST_F(BadInput, Configuration) {
  std::string bomb = "a0: &a0 [x, x]\n", deep(10'000, '[');
  for (int i = 1; i < 30; ++i) bomb += fmt::format("a{0}: &a{0} [*a{1}, *a{1}]\n", i, i - 1);
  const std::string utf16 = "\xFF\xFEr\0u\0n\0:\0"s;
  std::vector<Mistake> mistakes{
      config("an unknown key", "training:\n  stepz: 3\n",
             {"run.yaml:2:3:", "training.stepz", "did you mean", "steps"}),
      config("an unknown section", "trainning: {steps: 3}\n",
             {"run.yaml:1:1:", "did you mean 'training'"}),
      config("a key of another trainer", "training: {learning_rate: 1.0e-3}\n",
             {"training.learning_rate", "did you mean 'schedule.peak'"}),
      config("a number that is none", "training: {steps: many}\n",
             {"run.yaml:1:19:", "training.steps", "many"}),
      config("out of range", "model: {dropout: 1.5}\n", {"model.dropout", "1.5"}),
      config("not a number (`.nan`)", "schedule: {peak: .nan}\n", {"schedule.peak"}),
      config("overflow", "training: {steps: 99999999999999999999}\n", {"training.steps"}),
      config("a unit that does not exist", "training: {steps: 3Q}\n", {"training.steps", "3Q"}),
      config("a key that stands twice", "run: {seed: 1, seed: 2}\n", {"run.seed"}),
      config("a word that is no choice", "attention: {kind: sofmax}\n",
             {"attention.kind", "softmax"}),
      config("an odd degree", "attention: {kind: polynomial, degree: 3}\n",
             {"attention.degree", "3", "even"}),
      config("an odd degree of a sketch", "attention: {kind: polysketch, degree: 5}\n",
             {"attention.degree", "5", "even"}),
      config("a degree of a sketch that is no power of two",
             "attention: {kind: polysketch, degree: 6}\n",
             {"attention.degree", "6", "a power of two"}),
      config("a sketch of size 0", "attention: {kind: polysketch, sketch_size: 0}\n",
             {"attention.sketch_size", "0", "1"}),
      config("a block of length 0", "attention: {kind: polysketch, block: 0}\n",
             {"attention.block", "0", "1"}),
      config("batch that is no multiple of the context",
             "data: {context: 100}\ntraining: {batch_tokens: 1050}\n",
             {"training.batch_tokens", "1050", "100"}),
      config("heads that do not divide the width",
             "model: {size: custom, layers: 1, width: 30, heads: 4}\n", {"model.heads", "30"}),
      config("three mistakes at once",
             "run: {sed: 1}\nmodel: {size: tiny}\ntraining: {steps: -1}\n",
             {"run.yaml:1:", "run.yaml:2:", "run.yaml:3:"}),
      config("anchors and aliases (alias bomb)", bomb, {"anchor"}),
      config("nesting of 10,000 levels", deep, {"run.yaml:1:"}),
      config("a file of 2 MiB", std::string(2 << 20, '#'), {"larger than"}),
      config("two documents", "run: {seed: 1}\n---\nrun: {seed: 2}\n", {"second document"}),
      config("an empty file", "", {"empty"}),
      config("bytes that are no text",
             "\x7f"
             "ELF\x02\x01\x01\0\0"s,
             {"run.yaml"}),
      config("UTF-16", utf16, {"UTF-16"}),
      config("`base:` that does not exist", "base: nothing.yaml\n", {"nothing.yaml"}),
  };
  mistakes.push_back(
      {"`--set training.stepz=3`", 78, {"training.stepz", "steps"}, [](const fs::path& folder) {
         return train(folder, {"training.stepz=3"});
       }});
  mistakes.push_back(
      {"a vocabulary below the tokenizer's",
       78,
       {"model.vocabulary", "100", "400"},
       [](const fs::path& folder) { return train(folder, {"model.vocabulary=100"}); }});
  mistakes.push_back({"a corpus that is not described",
                      78,
                      {"data.corpus", "pg91", "did you mean 'pg19'?"},
                      [](const fs::path& folder) { return train(folder, {"data.corpus=pg91"}); }});
  mistakes.push_back(
      {"a store that does not exist", 78, {"data.root", "ftp"}, [](const fs::path& folder) {
         return train(folder, {"data.root=ftp://host/x"});
       }});
  mistakes.push_back(
      {"a context beyond the memory of any machine",
       78,
       {"data.context", "1073741824", "are available", "lower data.context", "model.recompute"},
       [](const fs::path& folder) {
         return train(folder, {"data.context=1Gi", "training.batch_tokens=1Gi"});
       }});
  mistakes.push_back(
      {"micro-batches beyond it",
       78,
       {"data.context", "are available", "training.micro_batch_tokens"},
       [](const fs::path& folder) {
         return train(folder, {"training.batch_tokens=64Gi", "training.micro_batch_tokens=64Gi"});
       }});
  mistakes.push_back({"a model beyond it",
                      78,
                      {"model.size", "are available", "smaller"},
                      [](const fs::path& folder) {
                        return train(folder, {"model.layers=10000", "model.width=64Ki"});
                      }});
  mistakes.push_back(
      {"the same of `bench step`", 78, {"data.context", "are available"}, [](const fs::path&) {
         return Words{"bench",
                      "step",
                      workplace().config().string(),
                      "--set",
                      "data.context=1Gi",
                      "--set",
                      "training.batch_tokens=1Gi"};
       }});
  mistakes.push_back(
      {"`data.cleaning` for a corpus without markup",
       78,
       {"data.cleaning"},
       [](const fs::path& folder) { return train(folder, {"data.cleaning=plain"}); }});
  check("Configuration", mistakes);
}

TEST_F(BadInput, Records) {
  check("Records",
        {line("a line that is no JSON", {"record 20", "byte "}, R"({"text": "cut)"),
         line("a line that is no object", {"record 20"}, R"(["text"])"),
         line("a line without the field", {"record 20", "text"}, R"({"txet": "a"})"),
         line("a comma behind the object", {"record 20", "comma"}, R"({"text": "a"},)"),
         line("a number as text", {"record 20", "a number"}, R"({"text": 7})"),
         line("a list of texts", {"record 20", "an array"}, R"({"text": ["a", "b"]})"),
         line("invalid UTF-8", {"record 20", "UTF-8"}, "{\"text\": \"caf\xE9 au lait\"}"),
         line("a lone surrogate escape", {"record 20", "surrogate"}, R"({"text": "a \ud800 b"})"),
         line("a NUL character", {"record 20", "NUL"}, R"({"text": "a \u0000 b"})"),
         line("a line above `data.max_line_bytes`", {"record 20"},
              "{\"text\": \"" + std::string(5000, 'x') + "\"}", {"data.max_line_bytes=4096"}),
         line("too many bad lines in skip mode", {"bad", "data.max_bad_fraction"}, "{\n{\n{\n{",
              {"data.on_error=skip"}),
         line("too many bad lines in a row in skip mode", {"in a row"}, "{\n{\n{\n{",
              {"data.on_error=skip", "data.max_bad_fraction=1", "data.max_bad_in_a_row=3"})});
}

TEST_F(BadInput, Files) {
  const std::string zipped = gzip(good_lines(200));
  std::string crc = zipped;
  crc[crc.size() - 6] ^= 1;
  const std::string payload = example({{"text", "A page of text that stands in a record."}});
  std::string flipped = tfrecord(payload), torn = tfrecord(payload);
  flipped[20] ^= 1;
  torn.resize(torn.size() - 6);
  const auto file = [](const std::string& name, const std::string& content) {
    return [name, content](const fs::path& root) { write_text(root / name, content); };
  };
  const std::string c4_record = "c4-train.tfrecord-00000-of-00001";
  const auto outside = [](const std::string& pattern) {
    return [pattern](const fs::path& folder) {
      fs::create_directories(folder / "data");
      write_text(folder / "other.yaml",
                 "name: other\nlayouts:\n  - format: text\n    train: [\"" + pattern + "\"]\n");
      return train(folder, {"data.corpus=" + (folder / "other.yaml").string(),
                            "data.root=" + (folder / "data").string()});
    };
  };
  check(
      "Files",
      {data("truncated gzip", 65, {"a.jsonl.gz", "byte"}, "jsonl",
            file("train/a.jsonl.gz", zipped.substr(0, zipped.size() / 2))),
       data("truncated gzip, skip mode", 65, {"a.jsonl.gz"}, "jsonl",
            file("train/a.jsonl.gz", zipped.substr(0, zipped.size() / 2)), {"data.on_error=skip"}),
       data("gzip with a wrong CRC", 65, {"a.jsonl.gz"}, "jsonl", file("train/a.jsonl.gz", crc)),
       data("gzip with garbage behind it", 65, {"a.jsonl.gz"}, "jsonl",
            file("train/a.jsonl.gz", zipped + "garbage")),
       data("gzip bomb (one line of 32 MiB of zeros)", 65, {"a.jsonl.gz"}, "jsonl",
            file("train/a.jsonl.gz", gzip(std::string(32 << 20, '0'))),
            {"data.max_line_bytes=1Mi"}),
       data("TFRecord with a flipped bit", 65, {c4_record, "record 0"}, "c4",
            file(c4_record, flipped)),
       data("truncated TFRecord", 65, {c4_record, "record 0"}, "c4", file(c4_record, torn)),
       data("Parquet that is none", 65, {"c4-train-0.parquet"}, "c4",
            file("c4-train-0.parquet", "PAR1 and then something else PAR1")),
       data("Parquet without the column", 65, {"c4-train-0.parquet", "'text'", "body"}, "c4",
            [](const fs::path& root) {
              write_parquet(root / "c4-train-0.parquet", "body", {"a", "b"});
            }),
       data("files without a usable token", 65, {"tokens"}, "text", file("train/a.txt", "")),
       data("less text than one window", 65, {"data.context"}, "text",
            file("train/a.txt", "Three short words.")),
       data("a text file that is not UTF-8", 65, {"a.txt", "UTF-8"}, "text",
            file("train/a.txt", "Latin \xE9 text\n")),
       data("a folder without training files", 66, {"train/*.txt"}, "text", file("other.txt", "x")),
       data("a pipe among the files", 65, {"a.txt", "regular file"}, "text",
            [](const fs::path& root) {
              fs::create_directories(root / "train");
              ASSERT_EQ(mkfifo((root / "train/a.txt").c_str(), 0600), 0);
            }),
       data("a symbolic link to nothing", 66, {"a.txt", "gone.txt", "remove the link"}, "text",
            [](const fs::path& root) {
              fs::create_directories(root / "train");
              fs::create_symlink("../gone.txt", root / "train/a.txt");
            }),
       data("symbolic links in a circle", 66, {"a.txt", "circle"}, "text",
            [](const fs::path& root) {
              fs::create_directories(root / "train");
              fs::create_symlink("a.txt", root / "train/a.txt");
            }),
       data("a folder that leads back to itself", 65, {"train/again", "folder above it"}, "text",
            [](const fs::path& root) {
              fs::create_directories(root / "train");
              fs::create_symlink(".", root / "train/again");
            }),
       data("a symbolic link to a folder, with the name of a file", 65,
            {"a.txt: is a link to a folder"}, "text",
            [](const fs::path& root) {
              fs::create_directories(root / "train");
              fs::create_symlink("..", root / "train/a.txt");
            }),
       data("text in UTF-16", 65, {"a.txt", "UTF-16", "iconv"}, "text",
            file("train/a.txt", "\xFF\xFEt\0e\0x\0t\0"s)),
       data("UTF-16 without a byte order mark", 65, {"a.txt", "UTF-16", "iconv"}, "text",
            file("train/a.txt", "t\0e\0x\0t\0"s)),
       data("gzip under another name", 65, {"a.txt", "gzip", ".gz"}, "text",
            file("train/a.txt", "\x1f\x8b\b\0\0\0"s)),
       data("JSON lines in UTF-16", 65, {"a.jsonl", "UTF-16", "iconv"}, "jsonl",
            file("train/a.jsonl", "\xFE\xFF\0{\0}"s)),
       data("a JSON array instead of lines", 65, {"a.jsonl", "JSON array", "jq"}, "jsonl",
            file("train/a.jsonl", "[\n  {\"text\": \"a\"},\n  {\"text\": \"b\"}\n]\n")),
       {"a description that points out of the folder (`../`)",
        78,
        {"relative to the root"},
        outside("../secret.txt")},
       {"a description with an absolute path",
        78,
        {"relative to the root"},
        outside("/etc/passwd")},
       {"a corpus folder that does not exist",
        66,
        {"data.root", "nowhere"},
        [](const fs::path& folder) {
          return train(folder, {"data.root=" + (folder / "nowhere").string()});
        }}});
}

TEST_F(BadInput, Tokenizer) {
  const std::string model = read_text(workplace().tokenizer());
  const auto with = [](const std::string& content) {
    return [content](const fs::path& folder) {
      write_text(folder / "bad.model", content);
      return train(folder, {"data.tokenizer.path=" + (folder / "bad.model").string()});
    };
  };
  const auto piece = [](const std::string& text, float score) {
    return wire_bytes(
        1, wire_bytes(1, text) + "\x15"s + std::string(reinterpret_cast<const char*>(&score), 4));
  };
  check(
      "Tokenizer",
      {{"a tokenizer that does not exist",
        66,
        {"none.model"},
        [](const fs::path& folder) {
          return train(folder, {"data.tokenizer.path=" + (folder / "none.model").string()});
        }},
       {"an empty path",
        66,
        {"data.tokenizer.path"},
        [](const fs::path& folder) { return train(folder, {"data.tokenizer.path="}); }},
       {"an empty file", 65, {"bad.model"}, with("")},
       {"a truncated model", 65, {"bad.model"}, with(model.substr(0, model.size() / 2 + 1))},
       {"random bytes", 65, {"bad.model"}, with("\x8f\x03random\xff\xfe bytes that are no model")},
       {"a text file", 65, {"bad.model"}, with("hello\nworld\n")},
       {"a piece with a score that is no number",
        65,
        {"bad.model"},
        with(model + piece("zzz", std::nanf("")))},
       {"`tokenizer train` with more pieces than the text gives",
        65,
        {"--vocab-size"},
        [](const fs::path& folder) {
          write_text(folder / "a.txt", "one two three\n");
          return Words{"tokenizer",    "train", "--input",  (folder / "a.txt").string(),
                       "--vocab-size", "5000",  "--output", (folder / "x.model").string()};
        }},
       {"`tokenizer train` without text", 66, {"nothing.txt"}, [](const fs::path& folder) {
          return Words{"tokenizer",    "train", "--input",  (folder / "nothing.txt").string(),
                       "--vocab-size", "500",   "--output", (folder / "x.model").string()};
        }}});
}

TEST_F(BadInput, RunFolder) {
  const fs::path trained = workplace().run("healthy");
  if (checkpoint_steps(trained).empty())
    workplace().train("healthy", {"training.steps=3", "evaluation.every=0"});
  const auto again = [trained](const fs::path& folder, const Words& settings) {
    fs::copy(trained, folder / "run", fs::copy_options::recursive);
    return train(folder, settings);
  };
  const auto damaged = [again](const std::function<void(const fs::path&)>& damage) {
    return [=](const fs::path& folder) {
      Words words = again(folder, {"training.steps=5"});
      damage(checkpoint_path(folder / "run", 3));
      return words;
    };
  };
  const auto flip = [](const fs::path& file) {
    std::string bytes = read_text(file);
    bytes[bytes.size() / 2] ^= 1;
    write_text(file, bytes);
  };
  check(
      "Run folder",
      {{"a run folder under a file",
        73,
        {"taken"},
        [](const fs::path& folder) {
          write_text(folder / "taken", "");
          return train(folder, {"run.directory=" + (folder / "taken/run").string()});
        }},
       {"continuing with another model",
        78,
        {"model.layers", "2", "3"},
        [again](const fs::path& folder) { return again(folder, {"model.layers=3"}); }},
       {"continuing with another schedule",
        78,
        {"schedule.peak", "--allow-config-change"},
        [again](const fs::path& folder) { return again(folder, {"schedule.peak=1e-3"}); }},
       {"continuing with another tokenizer",
        65,
        {"SHA-256", "other.model"},
        [again](const fs::path& folder) {
          const auto made =
              polysketch({"tokenizer", "train", "--recipe", "bpe-bytes", "--vocab-size", "390",
                          "--input", (workplace().corpus() / "train").string(), "--output",
                          (folder / "other.model").string()});
          EXPECT_EQ(made.exit_code, 0) << made.err;
          return again(folder, {"data.tokenizer.path=" + (folder / "other.model").string()});
        }},
       {"the only checkpoint has a flipped bit",
        81,
        {"model.safetensors", "step-00000003"},
        damaged([flip](const fs::path& checkpoint) { flip(checkpoint / "model.safetensors"); })},
       {"the only checkpoint is truncated",
        81,
        {"optimizer.safetensors"},
        damaged([](const fs::path& checkpoint) {
          fs::resize_file(checkpoint / "optimizer.safetensors", 1000);
        })},
       {"the only checkpoint lacks a file",
        81,
        {"optimizer.safetensors"},
        damaged(
            [](const fs::path& checkpoint) { fs::remove(checkpoint / "optimizer.safetensors"); })},
       {"a manifest that is no JSON",
        81,
        {"manifest.json"},
        damaged([](const fs::path& checkpoint) { write_text(checkpoint / "manifest.json", "{"); })},
       {"`evaluate --set model.layers=3`",
        78,
        {"model.layers"},
        [trained](const fs::path&) {
          return Words{"evaluate", "perplexity", trained.string(), "--set", "model.layers=3"};
        }},
       {"`evaluate --split dev`",
        64,
        {"--split", "dev"},
        [trained](const fs::path&) {
          return Words{"evaluate", "perplexity", trained.string(), "--split", "dev"};
        }},
       {"a stride above the window",
        64,
        {"--stride"},
        [trained](const fs::path&) {
          return Words{"evaluate", "perplexity", trained.string(), "--stride", "100"};
        }},
       {"a prompt that is not UTF-8",
        65,
        {"--prompt", "UTF-8"},
        [trained](const fs::path&) {
          return Words{"generate", trained.string(), "--prompt", "caf\xE9"};
        }},
       {"a learning rate that blows the model up",
        80,
        {"not finite", "schedule.peak"},
        [](const fs::path& folder) {
          return train(folder, {"schedule.peak=1e30", "schedule.warmup=0", "optimizer.clip=0"});
        }},
       {"a device that is not there",
        78,
        {"training.device", "cuda:99"},
        [](const fs::path& folder) { return train(folder, {"training.device=cuda:99"}); }}});
}

/// An older checkpoint takes the place of a damaged one, and the log says so.
TEST(Fallback, OlderCheckpoint) {
  const fs::path run = workplace().run("fallback");
  workplace().train("fallback", {"training.steps=6", "checkpoint.every=3", "evaluation.every=0"});
  const std::string wanted = read_text(checkpoint_path(run, 6) / "model.safetensors");
  fs::resize_file(checkpoint_path(run, 6) / "model.safetensors", 1000);
  const ProcessResult result = workplace().train(
      "fallback", {"training.steps=6", "checkpoint.every=3", "evaluation.every=0"});
  EXPECT_THAT(result.err, testing::HasSubstr("step-00000003"));
  EXPECT_EQ(metric_rows(run, "step").size(), 6u);
  EXPECT_TRUE(read_text(checkpoint_path(run, 6) / "model.safetensors") == wanted);
}

/// Nothing was saved that is not finite, and the last good checkpoint stays.
TEST(NotFinite, KeepsTheLastCheckpoint) {
  const fs::path run = workplace().run("diverging");
  const ProcessResult result = polysketch(workplace().train_command(
      "diverging", {"schedule.peak=1e20", "schedule.warmup=0", "optimizer.clip=0",
                    "checkpoint.every=1", "evaluation.every=0"}));
  EXPECT_EQ(result.exit_code, 80) << result.err;
  if (!checkpoint_steps(run).empty()) {
    EXPECT_EQ(polysketch({"checkpoint", "verify", run.string()}).exit_code, 0);
  }
}

/// What cannot be recorded is not worth a run.
TEST(Logs, UnwritableEventsAreAWarning) {
  const fs::path run = workplace().run("unwritable");
  write_text(run / "tensorboard", "a file where the folder should be");
  const ProcessResult result =
      workplace().train("unwritable", {"training.steps=3", "evaluation.every=0"});
  EXPECT_THAT(result.err, testing::HasSubstr("tensorboard"));
  EXPECT_EQ(metric_rows(run, "step").size(), 3u);
}

}  // namespace
}  // namespace polysketch::test
