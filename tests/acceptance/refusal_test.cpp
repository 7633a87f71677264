// SPDX-License-Identifier: Apache-2.0
// What the operating system refuses is said with the path and its own exit code, never as a defect
// of the program; and so is every number of the command line that is none.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include "acceptance/workplace.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/verification.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

const std::string& trained() {
  static const std::string run = [] {
    workplace().train("refusals");
    return workplace().run("refusals").string();
  }();
  return run;
}

/// The last line that was said, which must be the only error.
std::string error_of(const ProcessResult& result) {
  const size_t at = result.err.rfind("ERROR ");
  EXPECT_NE(at, std::string::npos) << result.err;
  if (at == std::string::npos) return "";
  EXPECT_EQ(result.err.find("ERROR "), at) << result.err;
  EXPECT_EQ(
      std::count(result.err.begin() + static_cast<std::ptrdiff_t>(at), result.err.end(), '\n'), 1)
      << result.err;
  EXPECT_THAT(result.err.substr(at),
              testing::StartsWith(fmt::format("ERROR {}: ", result.exit_code)));
  return result.err.substr(at);
}

Words training(const fs::path& folder, const Words& settings) {
  Words words{"train", workplace().config().string(), "--set",
              "run.directory=" + (folder / "run").string()};
  for (const std::string& setting : settings) {
    words.emplace_back("--set");
    words.push_back(setting);
  }
  return words;
}

/// Names under which there can be nothing: a chain of links without an end, longer than names may
/// be, behind a file.
TEST(SystemErrors, ANameThatLeadsNowhereIsNamed) {
  TemporaryFolder folder;
  fs::create_symlink("two", folder / "one");
  fs::create_symlink("one", folder / "two");
  write_text(folder / "file", "text");
  const std::string config = workplace().config().string();
  for (const auto& [name, reason] :
       {std::pair((folder / "one").string(), "symbolic links"),
        std::pair((folder / std::string(300, 'n')).string(), "too long"),
        std::pair((folder / "file/x").string(), "")}) {
    for (const Words& words :
         {Words{"config", "check", name}, Words{"train", name},
          Words{"plan", config, "--step", name},
          Words{"plan", config, "--nodes", "2", "--collectives", name},
          Words{"evaluate", "perplexity", name}, Words{"generate", name},
          Words{"report", name, "--output", (folder / "page.html").string()},
          Words{"checkpoint", "list", name}, Words{"checkpoint", "verify", name},
          Words{"checkpoint", "inspect", name}, Words{"tokenizer", "inspect", "--model", name},
          Words{"tokenizer", "train", "--input", name, "--output", (folder / "m").string()},
          Words{"data", "inspect", config, "--set", "data.root=" + name},
          Words{"data", "verify", config, "--set", "data.tokenizer.path=" + name},
          Words{"evaluate", "perplexity", trained(), "--set", "data.root=" + name}}) {
      const ProcessResult result = polysketch(words);
      EXPECT_EQ(result.exit_code, 66) << testing::PrintToString(words) << result.err;
      EXPECT_THAT(error_of(result), AllOf(HasSubstr(name), HasSubstr(reason)));
    }
    for (const Words& words :
         {Words{"report", trained(), "--output", name + "/page.html"},
          Words{"data", "prepare", config, "--set", "data.cache=" + name},
          training(folder.path(), {"run.directory=" + name}),
          Words{"launch", "--log-dir", name, "--", "config", "check", config}}) {
      const ProcessResult result = polysketch(words);
      EXPECT_EQ(result.exit_code, 73) << testing::PrintToString(words) << result.err;
      EXPECT_THAT(error_of(result), HasSubstr(name));
    }
  }
}

TEST(SystemErrors, AFolderForAFileAndTheReverse) {
  TemporaryFolder folder;
  write_text(folder / "file", "text");
  const std::string config = workplace().config().string(), here = folder.path().string(),
                    file = (folder / "file").string();
  const auto check = [&](const Words& words, const testing::Matcher<int>& code,
                         const std::string& name) {
    const ProcessResult result = polysketch(words);
    EXPECT_THAT(result.exit_code, code) << testing::PrintToString(words) << result.err;
    EXPECT_THAT(error_of(result), HasSubstr(name));
  };
  check({"config", "check", here}, 64, "is a folder");
  check({"tokenizer", "inspect", "--model", here}, 74, "is a folder");
  check({"plan", config, "--step", here}, 74, "is a folder");
  check({"checkpoint", "list", file}, AnyOf(64, 66), file);
  check({"checkpoint", "inspect", file}, 65, file);
  check({"evaluate", "perplexity", file}, AnyOf(64, 66, 74), file);
  check({"report", file, "--output", "-"}, AnyOf(64, 66), file);
  check({"data", "inspect", config, "--set", "data.root=" + file}, 66, "is not a folder");
  check({"data", "prepare", config, "--set", "data.cache=" + file}, 73, file);
  check(training(folder.path(), {"run.directory=" + file}), 73, file);
  check({"launch", "--log-dir", file, "--", "config", "check", config}, 73, file);
  const std::string pipe = (folder / "rank-0.log").string();
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  check({"launch", "--log-dir", folder.path().string(), "--", "config", "check", config}, 73, pipe);
}

/// As the system counts them from the start of the program.
ProcessResult limited(const std::string& limit, const Words& words) {
  std::string command = "ulimit " + limit + "; exec " + program().string();
  for (const std::string& word : words) command += " '" + word + "'";
  return run_process({"sh", "-c", command});
}

TEST(SystemErrors, TooFewDescriptors) {
  TemporaryFolder folder;
  const std::string config = workplace().config().string();
  size_t refused = 0;
  for (const char* count : {"3", "4", "5", "6", "8", "11"}) {
    for (const Words& words :
         {Words{"config", "check", config},
          Words{"report", trained(), "--output", (folder / "p").string()},
          Words{"evaluate", "perplexity", trained()},
          Words{"data", "prepare", config, "--set", "data.cache=" + (folder / count).string()},
          Words{"launch", "--nproc", "2", "--", "config", "check", config}}) {
      const ProcessResult result = limited(std::string("-n ") + count, words);
      if (result.exit_code == 127) continue;  // not even its libraries could be opened
      EXPECT_THAT(result.exit_code, AnyOf(0, 74))
          << count << testing::PrintToString(words) << result.err;
      if (result.exit_code == 0) continue;
      ++refused;
      EXPECT_THAT(error_of(result), HasSubstr("ulimit -n"));
    }
  }
  EXPECT_GT(refused, 5u);
}

/// SIGXFSZ, which such a limit sends, would end the program without a word.
TEST(SystemErrors, ALimitOfTheSizeOfFiles) {
  TemporaryFolder folder;
  const auto name = [&](const char* file) { return (folder / file).string(); };
  write_text(folder / "page.html", "old");
  for (const Words& words :
       {Words{"report", trained(), "--output", name("page.html")},
        Words{"tokenizer", "train", "--input", (workplace().corpus() / "train").string(),
              "--recipe", "bpe-bytes", "--vocab-size", "400", "--output", name("m")},
        Words{"data", "prepare", workplace().config().string(), "--set",
              "data.cache=" + name("cache")},
        training(folder.path(),
                 {"training.steps=5", "checkpoint.every=2", "evaluation.every=0"})}) {
    const ProcessResult result = limited("-f 8", words);  // of 512 bytes
    EXPECT_EQ(result.exit_code, 74) << words[0] << result.err;
    EXPECT_THAT(error_of(result), HasSubstr("raise the limit by ulimit -f"));
  }
  // enough for the token cache, not for a checkpoint: known before the first step
  const ProcessResult result = limited("-f 60", training(folder.path(), {"training.steps=5"}));
  EXPECT_EQ(result.exit_code, 74) << result.err;
  EXPECT_THAT(error_of(result), HasSubstr("raise the limit by ulimit -f"));
  EXPECT_FALSE(fs::exists(folder / "run"));
  EXPECT_EQ(read_text(folder / "page.html"), "old");
  for (const auto& entry : fs::recursive_directory_iterator(folder.path()))
    EXPECT_THAT(entry.path().filename().string(), testing::Not(HasSubstr(".tmp-")));
}

TEST(SystemErrors, WantOfMemoryIsSaid) {
  const ProcessResult result =
      limited("-v 1000000", {"bench", "attention", "--kinds", "softmax", "--lengths", "32Ki",
                             "--heads", "64", "--head-width", "64", "--precision", "fp32",
                             "--rounds", "1", "--limit-seconds", "0"});
  if (result.exit_code == 127) GTEST_SKIP() << "the libraries alone need more: " << result.err;
  EXPECT_EQ(result.exit_code, 71) << result.err;
  EXPECT_THAT(error_of(result), HasSubstr("memory ran out"));
}

TEST(SystemErrors, ACurrentFolderThatIsGone) {
  TemporaryFolder folder;
  for (const std::string& words :
       {std::string("--version"), "config check '" + workplace().config().string() + "'"}) {
    const ProcessResult result =
        run_process({"sh", "-c",
                     fmt::format("mkdir '{0}/gone' && cd '{0}/gone' && rmdir '{0}/gone' "
                                 "&& exec {1} {2}",
                                 folder.path().string(), program().string(), words)});
    EXPECT_EQ(result.exit_code, 66) << result.err;
    EXPECT_THAT(error_of(result), HasSubstr("the current folder does not exist"));
  }
}

/// Whole by its own hash, and yet not what this program writes.
TEST(SystemErrors, AManifestOfAnotherProgramIsNoDefectOfThisOne) {
  TemporaryFolder folder;
  fs::copy(trained(), folder / "run", fs::copy_options::recursive);
  const fs::path checkpoint =
      checkpoint_path(folder / "run", checkpoint_steps(folder / "run").back());
  const Manifest whole = read_manifest(checkpoint);
  for (const char* key : {"config", "tokenizer_sha256", "train"}) {
    Manifest other = whole;
    other.state.erase(key);
    write_text(checkpoint / "manifest.json", manifest_text(other));
    const ProcessResult result = polysketch({"generate", checkpoint.string()});
    EXPECT_EQ(result.exit_code, 81) << result.err;
    EXPECT_THAT(error_of(result), HasSubstr(key));
  }
}

struct NumberOption {
  Words command;
  std::string option;
  Words also_wrong;  ///< beside what is wrong for every number
};

TEST(Numbers, OfEveryOptionAreCheckedAlike) {
  const std::string config = workplace().config().string();
  const Words perplexity{"evaluate", "perplexity", trained()}, generate{"generate", trained()},
      tokenizer{"tokenizer", "train", "--input", "x", "--output", "x"},
      step{"bench", "step", config}, attention{"bench", "attention"}, decode{"bench", "decode"},
      collectives{"bench", "collectives"}, scaling{"bench", "scaling", config},
      plan{"plan", config}, launch{"launch"}, data{"data", "inspect", config};
  const std::vector<NumberOption> options{
      {perplexity, "--context", {"0", "1.5"}},
      {perplexity, "--stride", {"0", "1.5"}},
      {perplexity, "--tokens", {"0", "1.5", "none"}},
      {generate, "--tokens", {"0", "1.5"}},
      {generate, "--samples", {"0", "1.5"}},
      {generate, "--seed", {"1.5", "9223372036854775808"}},
      {generate, "--top-k", {"1.5"}},
      {generate, "--top-p", {"1.1"}},
      {generate, "--temperature", {"101"}},
      {tokenizer, "--vocab-size", {"7", "2Mi"}},
      {tokenizer, "--sample-bytes", {"0"}},
      {tokenizer, "--seed", {"1.5"}},
      {tokenizer, "--threads", {"0", "1025"}},
      {tokenizer, "--coverage", {"0.4", "1.1"}},
      {data, "--files", {"1.5"}},
      {step, "--steps", {"0", "1M"}},
      {step, "--warmup", {"1M"}},
      {attention, "--lengths", {"0", "64,", ",64", "64,,32", "64;32"}},
      {attention, "--heads", {"0"}},
      {attention, "--head-width", {"0", "4097"}},
      {attention, "--batch", {"0"}},
      {attention, "--rounds", {"0"}},
      {attention, "--limit-seconds", {"5sec"}},
      {decode, "--positions", {"0", "64,"}},
      {decode, "--tokens", {"0"}},
      {collectives, "--sizes", {"3", "1Ki,"}},
      {collectives, "--rounds", {"0"}},
      {scaling, "--processes", {"0", "1,,2", "1025"}},
      {scaling, "--steps", {"0"}},
      {plan, "--tokens-per-second", {"0"}},
      {plan, "--nodes", {"0"}},
      {plan, "--gpus", {"0"}},
      {plan, "--links", {"0"}},
      {plan, "--interconnect", {"0Gb", "400"}},
      {plan, "--intranode", {"0GB"}},
      {plan, "--memory-bandwidth", {"3TBs"}},
      {plan, "--latency", {"10", "2h"}},
      {plan, "--intranode-latency", {"10"}},
      {plan, "--mfu", {"0", "1.1"}},
      {plan, "--overlap", {"1.1"}},
      {launch, "--nproc", {"0", "1025"}},
      {launch, "--nnodes", {"0"}},
      {launch, "--node-rank", {"65536"}},
      {launch, "--port", {"0", "65536"}},
      {launch, "--max-restarts", {"1.5"}},
      {launch, "--grace", {"30", "1000d"}},
      {launch, "--stop-grace", {"30"}},
      {launch, "--restart-on", {"70,", "75", "0"}}};
  const Words for_all{"abc", "-1", "1e3.5", "nan", "inf", "", " 5", "5x", "99999999999999999999Ti"};
  size_t turn = 0;  // each option gets one of them
  for (const NumberOption& one : options) {
    Words wrong{for_all[turn++ % for_all.size()]};
    wrong.insert(wrong.end(), one.also_wrong.begin(), one.also_wrong.end());
    for (const std::string& value : wrong) {
      Words words = one.command;
      words.push_back(one.option);
      words.push_back(value);
      const ProcessResult result = polysketch(words);
      EXPECT_EQ(result.exit_code, 64) << one.option << " '" << value << "'" << result.err;
      EXPECT_EQ(result.out, "");
      EXPECT_THAT(result.err, testing::StartsWith("ERROR 64: " + one.option + ": got '"))
          << "'" << value << "'";
      EXPECT_THAT(result.err, HasSubstr(", want ")) << "'" << value << "'";
    }
  }
}

TEST(Numbers, TakeTheUnitsOfTheConfiguration) {
  const auto json = [](Words words) {
    words.emplace_back("--json");
    const ProcessResult result = polysketch(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return Row::parse(result.out, nullptr, false);
  };
  EXPECT_EQ(json({"evaluate", "perplexity", trained(), "--tokens", "1k"})["tokens_scored"], 1000);
  EXPECT_EQ(json({"evaluate", "perplexity", trained(), "--context", "0.03125Ki"})["window"], 32);
  EXPECT_EQ(json({"generate", trained(), "--tokens", "0.002k", "--seed", "1Mi"})[0]["seed"],
            1 << 20);
  const std::string config = workplace().config().string();
  const Row exact = json({"plan", config, "--tokens-per-second", "1024.5"});
  EXPECT_NEAR(exact["seconds"].get<double>(), 20 * 1024 / 1024.5, 1e-9);
  EXPECT_EQ(
      polysketch({"bench", "attention", "--kinds", "softmax", "--lengths", "0.0625Ki", "--heads",
                  "1", "--head-width", "8", "--rounds", "1", "--limit-seconds", "2min"})
          .exit_code,
      0);
  EXPECT_EQ(polysketch({"launch", "--nproc", "0.001k", "--grace", "0.5min", "--", "config", "check",
                        config})
                .exit_code,
            0);
}

TEST(Numbers, OfADeviceAreChecked) {
  for (const char* device : {"cuda:", "cuda:-1", "cuda:x", "cuda:99999999999999999999", "gpu"}) {
    const ProcessResult result = polysketch({"generate", trained(), "--device", device});
    EXPECT_EQ(result.exit_code, 78) << device;
    EXPECT_THAT(error_of(result), HasSubstr(device));
  }
}

}  // namespace
}  // namespace polysketch::test
