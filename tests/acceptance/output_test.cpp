// SPDX-License-Identifier: Apache-2.0
// Where results go: files that the user names, standard output, pipes whose reader goes away; and
// that a document is a document however the program was started.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstring>

#include "acceptance/workplace.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Words with(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

const std::string& trained() {
  static const std::string run = [] {
    workplace().train("output");
    return workplace().run("output").string();
  }();
  return run;
}

Words learn(const std::string& output) {
  return {"tokenizer", "train",     "--input",      (workplace().corpus() / "train").string(),
          "--recipe",  "bpe-bytes", "--vocab-size", "400",
          "--output",  output};
}

Words tiny_bench(const std::string& what) {
  return {"bench",
          what,
          "--kinds",
          "softmax",
          what == "decode" ? "--positions" : "--lengths",
          "32",
          "--heads",
          "1",
          "--head-width",
          "8",
          "--rounds",
          "1"};
}

TEST(OutputFiles, ADeviceStaysADevice) {
  TemporaryFolder folder;
  const std::string null = (folder / "null").string();
  if (::mknod(null.c_str(), S_IFCHR | 0666, makedev(1, 3)) != 0)
    GTEST_SKIP() << "device nodes cannot be made here: " << std::strerror(errno);
  for (const Words& words : {Words{"report", trained(), "--output", null}, learn(null),
                             with(tiny_bench("crossover"), {"--svg", null})}) {
    const ProcessResult result = polysketch(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_TRUE(fs::is_character_file(null)) << words[0];
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1)
      << "no record beside a device";
}

TEST(OutputFiles, ALinkStaysALinkAndItsTargetIsReplaced) {
  TemporaryFolder folder;
  const auto name = [&](const char* file) { return (folder / file).string(); };
  for (const char* file : {"page.html", "a.model", "a.model.json", "plot.svg"}) {
    write_text(folder / "kept" / file, "old");
    fs::create_symlink(fs::path("kept") / file, folder / file);
  }
  fs::permissions(folder / "kept/page.html", fs::perms::owner_all);
  for (const Words& words :
       {Words{"report", trained(), "--output", name("page.html")}, learn(name("a.model")),
        with(tiny_bench("crossover"), {"--svg", name("plot.svg")})}) {
    const ProcessResult result = polysketch(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out + result.err, HasSubstr(" -> ")) << "where it really went";
  }
  for (const char* file : {"page.html", "a.model", "a.model.json", "plot.svg"}) {
    EXPECT_TRUE(fs::is_symlink(folder / file)) << file;
    EXPECT_NE(read_text(folder / "kept" / file), "old") << file;
  }
  EXPECT_EQ(fs::status(folder / "kept/page.html").permissions(), fs::perms::owner_all);
  EXPECT_EQ(polysketch({"tokenizer", "inspect", "--model", name("a.model")}).exit_code, 0);
}

TEST(OutputFiles, StandardOutputHoldsNothingElse) {
  TemporaryFolder folder;
  fs::create_symlink("/proc/self/fd/1", folder / "stdout");
  for (const std::string& name : {std::string("-"), (folder / "stdout").string()}) {
    SCOPED_TRACE(name);
    const ProcessResult page = polysketch({"report", trained(), "--output", name});
    EXPECT_EQ(page.exit_code, 0) << page.err;
    EXPECT_THAT(page.out,
                AllOf(testing::StartsWith("<!DOCTYPE html>"), testing::EndsWith("</html>\n")));
    EXPECT_THAT(page.err, HasSubstr("standard output: "));
    const ProcessResult plot = polysketch(with(tiny_bench("crossover"), {"--svg", name}));
    EXPECT_EQ(plot.exit_code, 0) << plot.err;
    EXPECT_THAT(plot.out, AllOf(testing::StartsWith("<svg "), testing::EndsWith("</svg>\n")));
    EXPECT_THAT(plot.err, HasSubstr("microseconds per token"));
    const ProcessResult model = polysketch(learn(name));
    EXPECT_EQ(model.exit_code, 0) << model.err;
    EXPECT_THAT(model.err, HasSubstr("400 pieces"));
    write_text(folder / "read", model.out);
    EXPECT_EQ(polysketch({"tokenizer", "inspect", "--model", (folder / "read").string()}).exit_code,
              0);
    // Two documents in one stream would be neither.
    for (const Words& words : {with(learn(name), {"--json"}),
                               with(tiny_bench("crossover"), {"--svg", name, "--json"})}) {
      const ProcessResult both = polysketch(words);
      EXPECT_EQ(both.exit_code, 64);
      EXPECT_THAT(both.err, testing::StartsWith("ERROR 64: --json: "));
      EXPECT_EQ(both.out, "");
    }
  }
  EXPECT_TRUE(fs::is_symlink(folder / "stdout"));
  EXPECT_FALSE(fs::exists("-"));
}

TEST(OutputFiles, SayWhatIsWrongBeforeTheWorkIsDone) {
  TemporaryFolder folder;
  write_text(folder / "file", "kept");
  const auto name = [&](const char* file) { return (folder / file).string(); };
  for (const auto& [place, part] : {std::pair(name("missing/x"), "does not exist: make it first"),
                                    std::pair(folder.path().string(), "is a folder"),
                                    std::pair(name("file/x"), "Not a directory")}) {
    for (const Words& words : {Words{"report", trained(), "--output", place}, learn(place),
                               with(tiny_bench("crossover"), {"--svg", place})}) {
      const ProcessResult result = polysketch(words);
      EXPECT_EQ(result.exit_code, 73);
      EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
      EXPECT_THAT(result.err, AllOf(testing::StartsWith("ERROR 73: --"), HasSubstr(part)));
    }
  }
  EXPECT_EQ(polysketch({"report", trained(), "--output", ""}).exit_code, 64);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

/// Standard output of a command that must succeed, which is JSON and nothing else.
Row document_of(const Words& words, const Words& environment = {}) {
  const ProcessResult result = polysketch(words, environment);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  Row row = Row::parse(result.out, nullptr, false);
  EXPECT_FALSE(row.is_discarded()) << testing::PrintToString(words) << "\n" << result.out;
  return row;
}

TEST(Json, IsOneDocumentForEveryCommand) {
  const std::string config = workplace().config().string();
  const Words cache{"--set", "data.cache=" + (workplace().path() / "json-cache").string()};
  for (const Words& words :
       {Words{"config", "show", config}, Words{"plan", config},
        Words{"plan", config, "--nodes", "2", "--interconnect", "400Gb", "--scaling"},
        Words{"plan", config, "--tokens-per-second", "1e-300"},  // longer than numbers go
        with({"data", "inspect", config}, cache), with({"data", "prepare", config}, cache),
        with({"data", "verify", config, "--raw"}, cache), Words{"checkpoint", "list", trained()},
        Words{"checkpoint", "verify", trained()}, Words{"checkpoint", "inspect", trained()},
        Words{"evaluate", "perplexity", trained()}, Words{"generate", trained(), "--tokens", "2"},
        Words{"tokenizer", "inspect", "--model", workplace().tokenizer().string()},
        learn((workplace().path() / "json.model").string()), tiny_bench("attention"),
        with(tiny_bench("attention"), {"--limit-seconds", "1us"}),  // nothing is measured
        tiny_bench("crossover"), tiny_bench("decode"), Words{"launch", "--where"}}) {
    document_of(with(words, {"--json"}));
  }
  document_of({"config", "schema"});
}

TEST(Json, HoldsNamesThatAreNoText) {
  TemporaryFolder folder;
  const fs::path run = folder / "caf\xe9";
  fs::copy(trained(), run, fs::copy_options::recursive);
  const Row list = document_of({"checkpoint", "list", run.string(), "--json"});
  EXPECT_THAT(list[0]["path"].get<std::string>(), HasSubstr("caf\xEF\xBF\xBD"));
  document_of({"evaluate", "perplexity", run.string(), "--json"});
  // The same for files of a corpus, whose names go into the cache.
  write_text(folder / "text/test/caf\xe9.txt", read_text(workplace().corpus() / "test/five.txt"));
  const Row counts = document_of({"data", "inspect", workplace().config().string(), "--split",
                                  "test", "--set", "data.root=" + (folder / "text").string(),
                                  "--set", "data.cache=" + (folder / "cache").string(), "--json"});
  EXPECT_EQ(counts["splits"]["test"]["documents"], 1);
}

TEST(Json, IsTheSameThroughLaunch) {
  const std::string config = workplace().config().string();
  const auto launched = [](const Words& words) {
    return with({"launch", "--nproc", "2", "--"}, words);
  };
  const Words evaluate{"evaluate", "perplexity", trained(), "--json"};
  Row alone = document_of(evaluate), together = document_of(launched(evaluate));
  for (Row* row : {&alone, &together}) row->erase("seconds");
  EXPECT_NEAR(alone["nats"].get<double>(), together["nats"].get<double>(), 1e-6);
  alone.erase("nats");
  EXPECT_EQ(alone["tokens_scored"], together["tokens_scored"]);
  EXPECT_EQ(document_of(launched({"bench", "step", config, "--steps", "1", "--json"}))["processes"],
            2);
  EXPECT_EQ(document_of(launched({"bench", "collectives", "--sizes", "1Ki", "--json"}))["world"],
            2);
  EXPECT_EQ(document_of(launched({"config", "show", config, "--json"})),
            document_of({"config", "show", config, "--json"}));
  const Row scaling = document_of({"bench", "scaling", config, "--steps", "1", "--json"});
  EXPECT_EQ(scaling["rows"].size(), 4u);
  for (const Words& words :
       {Words{"config", "schema"}, Words{"report", trained(), "--output", "-"}})
    EXPECT_EQ(polysketch(launched(words)).out, polysketch(words).out);
  // A failure prints none.
  const ProcessResult failed =
      polysketch(launched({"evaluate", "perplexity", "nothing", "--json"}));
  EXPECT_EQ(failed.exit_code, 66);
  EXPECT_EQ(failed.out, "");
  // Without it lines say whose they are, as before.
  EXPECT_THAT(polysketch(launched({"evaluate", "perplexity", trained()})).out,
              testing::StartsWith("[0] "));
}

TEST(ClosedPipe, EndsACommandQuietly) {
  for (const Words& words :
       {Words{"config", "reference"}, Words{"plan", workplace().config().string()},
        Words{"evaluate", "perplexity", trained()}, Words{"checkpoint", "verify", trained()},
        Words{"report", trained(), "--output", "-"}, Words{"generate", trained(), "--tokens", "2"},
        Words{"--help"}, Words{"--version"}}) {
    std::string command = "exec " + program().string();
    for (const std::string& word : words) command += " '" + word + "'";
    // The reader is gone before the command begins.
    const ProcessResult result =
        run_process({"bash", "-c", "exec 3> >(:); sleep 0.1; " + command + " >&3"});
    EXPECT_EQ(result.exit_code, 0) << words[0] << ": " << result.err;
    EXPECT_THAT(result.err, Not(HasSubstr("ERROR"))) << words[0];
  }
}

TEST(FullDisk, BehindStandardOutputIs74) {
  for (const Words& words :
       {Words{"config", "reference"}, Words{"--help"}, Words{"report", trained(), "--output", "-"},
        Words{"evaluate", "perplexity", trained(), "--json"}}) {
    std::string command = program().string();
    for (const std::string& word : words) command += " '" + word + "'";
    const ProcessResult result = run_process({"sh", "-c", command + " >/dev/full"});
    EXPECT_EQ(result.exit_code, 74) << words[0];
    EXPECT_THAT(result.err, HasSubstr("ERROR 74: standard output: cannot write: No space left"));
  }
}

}  // namespace
}  // namespace polysketch::test
