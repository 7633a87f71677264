// SPDX-License-Identifier: Apache-2.0
// The commands that print figures: what their JSON holds, and that the figures agree with each
// other and with the run.
#include <gmock/gmock.h>

#include <chrono>
#include <cmath>
#include <iterator>
#include <numbers>
#include <thread>

#include "acceptance/workplace.hpp"
#include "process_group.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// Standard output of a command that must succeed, as JSON; nothing else may stand there.
Row json_of(Words words) {
  words.emplace_back("--json");
  const ProcessResult result = polysketch(words);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  Row row = Row::parse(result.out, nullptr, false);
  EXPECT_FALSE(row.is_discarded()) << result.out;
  return row;
}

Words with(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

/// A run that both kinds of tests read.
const fs::path& trained() {
  static const fs::path run = [] {
    workplace().train("trained", {"attention.kind=polynomial"});
    return workplace().run("trained");
  }();
  return run;
}

TEST(Help, NamesEveryCommand) {
  const ProcessResult help = polysketch({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const char* command : {"train", "evaluate", "generate", "tokenizer", "data", "plan", "bench",
                              "config", "checkpoint", "report", "launch"}) {
    EXPECT_THAT(help.out, testing::ContainsRegex(fmt::format("\n  {} ", command)));
    const ProcessResult one = polysketch({command, "--help"});
    EXPECT_EQ(one.exit_code, 0) << command;
    EXPECT_THAT(one.out, HasSubstr("Usage: ")) << command;
  }
  const ProcessResult version = polysketch({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.out, testing::StartsWith("polysketch "));
  EXPECT_THAT(version.out, HasSubstr("polynomial "));
}

TEST(Operations, CanBeForced) {
  const auto forced = [&](const char* what) {
    const std::string run = workplace().run(std::string("forced-") + what).string();
    return polysketch({"train", workplace().config().string(), "--set", "run.directory=" + run,
                       "--set", "training.steps=3"},
                      {std::string("POLYSKETCH_OPS=") + what});
  };
  const ProcessResult plain = forced("aten");
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_THAT(plain.err, HasSubstr("polynomial aten"));
  const ProcessResult wrong = forced("polynomial:fast");
  EXPECT_EQ(wrong.exit_code, 78);
  EXPECT_THAT(wrong.err, HasSubstr("ERROR 78: POLYSKETCH_OPS: polynomial has no implementation "
                                   "'fast': want cpu or aten"));
}

TEST(Output, WhenNobodyReadsIt) {
  const std::string run = program().string() + " plan " + workplace().config().string();
  const auto shell = [](const std::string& command) { return run_process({"sh", "-c", command}); };
  const ProcessResult full = shell(run + " > /dev/full");
  EXPECT_EQ(full.exit_code, 74);
  EXPECT_THAT(full.err, HasSubstr("ERROR 74: "));
  EXPECT_EQ(shell(run + " >&-").exit_code, 74);
  EXPECT_EQ(shell("(" + run + "; echo $? >&2) | true").err, "0\n")
      << "a reader that went away is no failure";
}

/// Training has nothing to say on standard output, so that nobody listens there does not matter.
TEST(Output, ARunGoesOnWithoutIt) {
  std::string command = program().string();
  for (const auto& word : workplace().train_command("deaf", {"training.steps=3"}))
    command += " '" + word + "'";
  EXPECT_EQ(run_process({"sh", "-c", command + " >&- 2>&-"}).exit_code, 0);
  EXPECT_EQ(metric_rows(workplace().run("deaf"), "step").size(), 3u);
  fs::remove_all(workplace().run("deaf"));
  EXPECT_EQ(run_process({"sh", "-c", "(" + command + " 2>&1; echo $? >&3) 3>&2 | true"}).err,
            "0\n");
  EXPECT_EQ(metric_rows(workplace().run("deaf"), "step").size(), 3u);
}

TEST(Plan, CountsWhatTheRunThenHas) {
  const Row plan = json_of(workplace().command("plan", "trained", {"attention.kind=polynomial"}));
  for (const char* key : {"parameters", "flops_per_token", "flops_per_token_causal", "weight_bytes",
                          "optimizer_bytes", "activation_bytes", "total_bytes", "checkpoint_bytes",
                          "tokens", "seconds"})
    ASSERT_TRUE(plan.contains(key)) << key;
  const Row start = metric_rows(trained(), "start").at(0);
  EXPECT_EQ(plan["parameters"], start["parameters"]);
  EXPECT_EQ(plan["flops_per_token"], start["flops_per_token"]);
  EXPECT_LT(plan["flops_per_token_causal"].get<double>(), plan["flops_per_token"].get<double>());
  EXPECT_EQ(plan["tokens"].get<double>(), metric_rows(trained()).back().at("tokens").get<double>());
  EXPECT_TRUE(plan["seconds"].is_null()) << "without a measured speed there is no time";
  const Row timed =
      json_of(with(workplace().command("plan", "trained"), {"--tokens-per-second", "1024"}));
  EXPECT_DOUBLE_EQ(timed["seconds"].get<double>(), 20);
  const auto bytes = fs::file_size(checkpoint_path(trained(), 20) / "model.safetensors") +
                     fs::file_size(checkpoint_path(trained(), 20) / "optimizer.safetensors");
  EXPECT_NEAR(plan["checkpoint_bytes"].get<double>(), static_cast<double>(bytes), 20'000)
      << "the headers come on top";
}

TEST(Data, InspectSaysHowWellTheFirstWindowsAreMixed) {
  const Words inspect{"data", "inspect", workplace().config().string(), "--set",
                      "data.context=128"};
  const Row splits = json_of(inspect)["splits"];
  const Row& order = splits["train"]["order"];
  EXPECT_EQ(order["version"], 2);
  // There are fewer than it looks at: together they are the split, but for its last tokens.
  EXPECT_EQ(order["windows"], splits["train"]["windows"]);
  for (const char* key : {"divergence", "random_divergence"}) {
    EXPECT_GT(order[key].get<double>(), 0) << key;
    EXPECT_LT(order[key].get<double>(), 1e-4) << key;
  }
  EXPECT_FALSE(splits["test"].contains("order"));
  EXPECT_THAT(polysketch(inspect).out, HasSubstr("  order       the first "));
  EXPECT_FALSE(json_of(with(inspect, {"--files", "1"}))["splits"]["train"].contains("order"))
      << "which is that of all files";
}

TEST(Bench, NeedsNoData) {
  const Row bench =
      json_of({"bench", "step", workplace().config().string(), "--set", "data.root=/nonexistent",
               "--set", "data.tokenizer.path=/nonexistent", "--steps", "3", "--warmup", "1"});
  for (const char* key : {"tokens_per_second", "seconds_per_step", "peak_bytes"})
    EXPECT_GT(bench.at(key).get<double>(), 0) << key;
  EXPECT_NEAR(bench["tokens_per_second"].get<double>() * bench["seconds_per_step"].get<double>(),
              1024, 1e-6);
  EXPECT_EQ(bench["steps"], 3);
}

TEST(Bench, AttentionNeedsNoConfiguration) {
  const Words shape{"--heads",     "2",    "--head-width", "16",
                    "--precision", "fp32", "--device",     "cpu",
                    "--rounds",    "2",    "--set",        "attention.features=16"};
  const Words kinds{"--kinds", "softmax,polysketch:random-local:8,performer", "--lengths",
                    "128,64"};
  const Row bench = json_of(with(with({"bench", "attention"}, shape), kinds));
  ASSERT_EQ(bench["figures"].size(), 6u);
  EXPECT_EQ(bench["figures"][0]["length"], 64) << "in order of length";
  for (const Row& row : bench["figures"]) {
    for (const auto& [key, value] : row.items()) {
      if (key != "kind" && key != "left_out") {
        EXPECT_GT(value.get<double>(), 0) << key;
      }
    }
  }
  const ProcessResult table =
      polysketch(with(with({"bench", "attention", workplace().config().string()}, shape), kinds));
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr(", 1 thread")) << "training.threads of the configuration";
  EXPECT_THAT(table.out, HasSubstr(bench["softmax_backend"].get<std::string>()));
  EXPECT_THAT(table.out, HasSubstr("polysketch:random-local:8"));

  TemporaryFolder folder;
  const std::string svg = (folder / "crossover.svg").string();
  const Row crossover = json_of(with(with({"bench", "crossover", "--svg", svg}, shape),
                                     {"--kinds", "performer", "--lengths", "64,128"}));
  EXPECT_EQ(crossover["figures"].size(), 4u) << "softmax comes on its own";
  ASSERT_EQ(crossover["crossovers"].size(), 1u);
  EXPECT_EQ(crossover["crossovers"][0]["kind"], "performer");
  EXPECT_THAT(read_text(svg),
              testing::AllOf(testing::StartsWith("<svg "), HasSubstr(">performer</text>"),
                             testing::EndsWith("</svg>\n")));
}

TEST(Bench, DecodeNeedsNoConfiguration) {
  const Words shape{"--heads",      "2",
                    "--head-width", "16",
                    "--precision",  "fp32",
                    "--device",     "cpu",
                    "--rounds",     "2",
                    "--set",        "attention.features=16",
                    "--set",        "attention.block=16"};
  const Words what{"--kinds", "softmax,polysketch:random-local:8,performer", "--positions",
                   "200,40"};
  const Row bench = json_of(with(with({"bench", "decode"}, shape), what));
  ASSERT_EQ(bench["figures"].size(), 6u);
  for (const Row& row : bench["figures"]) {
    EXPECT_GT(row["seconds_per_token"].get<double>(), 0);
    EXPECT_EQ(row["tokens"], row["kind"] == "softmax" ? 64 : 16) << "a whole block";
  }
  EXPECT_EQ(bench["figures"][2]["position"], 40);
  EXPECT_EQ(bench["figures"][2]["state_bytes"], bench["figures"][3]["state_bytes"]) << "constant";
  EXPECT_LT(bench["figures"][0]["state_bytes"], bench["figures"][1]["state_bytes"]);
  const ProcessResult table =
      polysketch(with(with(with({"bench", "decode"}, shape), what), {"--tokens", "3"}));
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("polysketch:random-local:8"));
  EXPECT_THAT(polysketch({"bench", "decode", "--positions", "0"}).err,
              testing::StartsWith("ERROR 64: --positions: got '0'"));
  EXPECT_EQ(polysketch({"bench", "decode", "--tokens", "0"}).exit_code, 64);
}

TEST(Bench, AttentionSaysWhatIsWrong) {
  const auto check = [](const Words& more, int code, const std::string& part) {
    const ProcessResult result = polysketch(with({"bench", "attention"}, more));
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_THAT(result.err, testing::StartsWith(fmt::format("ERROR {}: ", code)));
    EXPECT_THAT(result.err, HasSubstr(part));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_EQ(result.out, "");
  };
  check({"--kinds", "sofmax"}, 64, "did you mean 'softmax'?");
  check({"--lengths", "1024,x"}, 64, "--lengths: got 'x'");
  check({"--lengths", "0"}, 64, "--lengths: got '0'");
  check({"--heads", "0"}, 64, "--heads");
  check({"--head-width", "-3"}, 64, "--head-width");
  check({"--precision", "fp16"}, 64, "--precision");
  check({"--limit-seconds", "-1"}, 64, "--limit-seconds");
  check({"--set", "attention.block=0"}, 78, "attention.block");
  check({"--kinds", "polysketch:learned:p=6"}, 78, "6");
  check({"--device", "cuda:99"}, 78, "cuda:99");
  check({"nothing.yaml"}, 66, "nothing.yaml");
}

class Perplexity : public testing::Test {
 protected:
  static Row evaluate(const Words& more) {
    return json_of(with({"evaluate", "perplexity", trained().string()}, more));
  }
};

TEST_F(Perplexity, FiguresAgreeWithEachOtherAndWithTheText) {
  const Row p = evaluate({"--split", "test"});
  const std::string text = read_text(workplace().corpus() / "test/five.txt");
  int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = std::isspace(static_cast<unsigned char>(c)) != 0;
    words += !space && !inside ? 1 : 0;
    inside = !space;
  }
  EXPECT_EQ(p["bytes"], text.size());
  EXPECT_EQ(p["words"], words);
  EXPECT_EQ(p["documents"], 1);
  // The tokenizer itself, asked apart, gives as many ids; the end of the document is one more, the
  // first token is not predicted.
  const ProcessResult ids = run_process({"sh", "-c",
                                         program().string() + " tokenizer encode --ids --model " +
                                             workplace().tokenizer().string() + " < " +
                                             (workplace().corpus() / "test/five.txt").string()});
  std::istringstream stream(ids.out);
  const int64_t count = std::distance(std::istream_iterator<int>(stream), {});
  EXPECT_EQ(p["tokens"], count + 1);
  EXPECT_EQ(p["tokens_scored"], count);
  const double nats = p["nats"].get<double>(), scored = static_cast<double>(count);
  EXPECT_NEAR(p["nats_per_token"].get<double>(), nats / scored, 1e-12 * nats);
  EXPECT_NEAR(p["perplexity"].get<double>(), std::exp(nats / scored),
              1e-9 * std::exp(nats / scored));
  EXPECT_NEAR(p["bits_per_byte"].get<double>(),
              nats / static_cast<double>(text.size()) / std::numbers::ln2, 1e-9);
  const double per_word = std::exp(nats / static_cast<double>(words));
  EXPECT_NEAR(p["perplexity_per_word"].get<double>(), per_word, 1e-9 * per_word);
  EXPECT_LT(p["perplexity"].get<double>(), Workplace::kVocabulary) << "better than knowing nothing";
}

TEST_F(Perplexity, IsTheValidationOfTheRun) {
  const Row p = evaluate({"--split", "validation", "--tokens", "2k"});
  const Row row = metric_rows(trained(), "validation").back();
  EXPECT_EQ(row["step"], 20);
  EXPECT_EQ(p["tokens_scored"], row["tokens_scored"]);
  EXPECT_DOUBLE_EQ(p["nats_per_token"].get<double>(), row["loss"].get<double>());
}

/// More context never costs tokens, and on the whole it helps.
TEST_F(Perplexity, SlidingWindowsScoreTheSameTokens) {
  const Row disjoint = evaluate({"--split", "test"}),
            sliding = evaluate({"--split", "test", "--stride", "16"});
  EXPECT_EQ(sliding["tokens_scored"], disjoint["tokens_scored"]);
  EXPECT_EQ(sliding["window"], 64);
  EXPECT_EQ(sliding["stride"], 16);
  EXPECT_LT(
      std::abs(sliding["nats_per_token"].get<double>() - disjoint["nats_per_token"].get<double>()),
      0.2);
  // A window of 64 and one of 32 are different questions; each token is asked once in both.
  EXPECT_EQ(evaluate({"--split", "test", "--context", "32"})["tokens_scored"],
            disjoint["tokens_scored"]);
}

/// A window that the split does not fill is as long as the split; so is the memory that is asked
/// for.
TEST_F(Perplexity, AWindowBeyondTheSplitIsTheSplit) {
  const Row whole = evaluate({"--split", "test", "--context", "16k"}),
            beyond = evaluate({"--split", "test", "--context", "64Gi"});
  EXPECT_LT(whole["tokens"].get<int64_t>(), 16'000);
  EXPECT_EQ(beyond["window"], int64_t{64} << 30);
  for (const char* key : {"nats", "perplexity", "tokens_scored"})
    EXPECT_EQ(beyond[key], whole[key]) << key;
  const Row some = evaluate({"--split", "test", "--context", "300", "--tokens", "300"}),
            same = evaluate({"--split", "test", "--context", "64Gi", "--tokens", "300"});
  EXPECT_EQ(some["tokens_scored"], 300);
  EXPECT_EQ(same["nats"], some["nats"]) << "no more of a window than is to be scored";
}

/// A vocabulary padded beyond the tokenizer's pieces.
TEST(Padded, NoCommandMindsAndGenerateDrawsPiecesOnly) {
  const std::string name = "padded";
  const ProcessResult usual = workplace().train(name, {"model.vocabulary=512"});
  EXPECT_EQ(usual.err.find("model.vocabulary"), std::string::npos) << usual.err;
  const std::string run = workplace().run(name).string();
  for (const Words& options :
       {Words{}, Words{"--temperature", "5"}, Words{"--top-k", "450"}, Words{"--top-p", "0.99"}}) {
    // a fifth of the rows are no pieces, and after 20 steps they are as probable as the others
    const ProcessResult text = polysketch(
        with({"generate", run, "--tokens", "60", "--samples", "3", "--keep-going"}, options));
    EXPECT_EQ(text.exit_code, 0) << text.err;
  }
  EXPECT_TRUE(json_of({"evaluate", "perplexity", run})["perplexity"].is_number());
  const ProcessResult swapped =
      polysketch({"evaluate", "perplexity", run, "--set", "attention.kind=sliding_window"});
  EXPECT_EQ(swapped.exit_code, 0) << swapped.err;
  EXPECT_GT(json_of(workplace().command("plan", name, {"model.vocabulary=512"}))["parameters"],
            json_of(workplace().command("plan", name))["parameters"]);

  const ProcessResult large =
      workplace().train("very_padded", {"model.vocabulary=2000", "training.steps=3"});
  EXPECT_THAT(large.err, HasSubstr("80 % of the rows are never used and cost 52.8k parameters"));
}

TEST(EmbeddingScale, BelongsToTheRun) {
  const Words scaled{"model.embedding_scale=sqrt_width", "training.steps=4"};
  workplace().train("scaled", scaled);
  const std::string run = workplace().run("scaled").string();
  const ProcessResult other =
      polysketch(workplace().train_command("scaled", {"training.steps=4", "training.threads=2"}));
  EXPECT_EQ(other.exit_code, 78);
  EXPECT_THAT(other.err, HasSubstr("model.embedding_scale: sqrt_width -> one"));
  EXPECT_EQ(
      polysketch({"evaluate", "perplexity", run, "--set", "model.embedding_scale=one"}).exit_code,
      78);
  const ProcessResult text = polysketch({"generate", run, "--tokens", "5"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
}

TEST(ConfigCheck, LooksForDataAndTokenizer) {
  const auto check = [](const Words& settings, const Words& more = {}) {
    Words words = with({"config", "check", workplace().config().string()}, more);
    for (const std::string& setting : settings) {
      words.emplace_back("--set");
      words.push_back(setting);
    }
    return polysketch(words);
  };
  const ProcessResult good = check({});
  EXPECT_EQ(good.exit_code, 0) << good.err;
  EXPECT_EQ(good.out, workplace().config().string() +
                          ": valid; found 3 training files, 1 validation files, a tokenizer of 400 "
                          "pieces\n");
  const Words missing{"data.root=/nonexistent", "data.tokenizer.path=/nowhere.model"};
  const ProcessResult nothing = check(missing);
  EXPECT_EQ(nothing.exit_code, 66);
  EXPECT_THAT(nothing.err, testing::AllOf(HasSubstr("/nonexistent"), HasSubstr("/nowhere.model")))
      << "both are told at once";
  const ProcessResult alone = check(missing, {"--no-data"});
  EXPECT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_EQ(alone.out, workplace().config().string() + ": valid\n");
  EXPECT_EQ(check({"model.vocabulary=100"}).exit_code, 78);
  EXPECT_THAT(check({"model.vocabulary=2000"}).err, HasSubstr("80 % of the rows"));

  // the splits that this run needs, and no others
  const TemporaryFolder folder;
  fs::create_directories(folder / "text");
  fs::copy(workplace().corpus() / "train", folder / "text/train");
  const std::string root = "data.root=" + (folder / "text").string();
  const ProcessResult half = check({root});
  EXPECT_EQ(half.exit_code, 66);
  EXPECT_THAT(half.err, HasSubstr("validation"));
  EXPECT_EQ(check({root, "evaluation.every=0"}).exit_code, 0);
  EXPECT_EQ(check({root, "evaluation.split=train"}).exit_code, 0);
}

TEST(ConfigShow, ChangedIsWhatTheFileSays) {
  const ProcessResult shown = polysketch(
      {"config", "show", "--changed", workplace().config().string(), "--set", "run.seed=4"});
  ASSERT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, testing::AllOf(HasSubstr("seed: 4  # --set"), HasSubstr("layers: 2"),
                                        testing::Not(HasSubstr("default"))));
  const TemporaryFolder folder;
  write_text(folder / "short.yaml", shown.out);
  const auto values = [](const Words& words) { return json_of(words)["config"].dump(); };
  EXPECT_EQ(values({"config", "show", (folder / "short.yaml").string()}),
            values({"config", "show", workplace().config().string(), "--set", "run.seed=4"}));
}

/// Every command that takes a run, given the run's configuration.
TEST(RunFolder, AConfigurationInItsPlaceIsAnsweredWithTheFolder) {
  const std::string config = workplace().config().string();
  for (const Words& words :
       {Words{"evaluate", "perplexity", config}, Words{"generate", config}, Words{"report", config},
        Words{"checkpoint", "list", config}, Words{"checkpoint", "verify", config},
        Words{"checkpoint", "inspect", config}}) {
    const ProcessResult result = polysketch(words);
    EXPECT_EQ(result.exit_code, 64) << words[0];
    EXPECT_THAT(result.err, testing::AllOf(HasSubstr("give a run folder"),
                                           HasSubstr(workplace().run("tiny").string())))
        << words[0];
  }
  const ProcessResult other = polysketch({"train", trained().string()});
  EXPECT_EQ(other.exit_code, 64);
  EXPECT_THAT(other.err, HasSubstr(trained().string() + "/config.yaml"));
}

TEST(Generate, SameSeedSameText) {
  const auto text = [](const Words& more) {
    return json_of(
        with({"generate", trained().string(), "--prompt", "The first steamboat", "--tokens", "40"},
             more));
  };
  const Row one = text({"--seed", "5"}), again = text({"--seed", "5"}),
            other = text({"--seed", "6"});
  ASSERT_EQ(one.size(), 1u);
  for (const char* key : {"seed", "text", "tokens", "tokens_per_second"})
    EXPECT_TRUE(one[0].contains(key)) << key;
  EXPECT_EQ(one[0]["text"], again[0]["text"]);
  EXPECT_NE(one[0]["text"], other[0]["text"]);
  EXPECT_THAT(one[0]["text"].get<std::string>(), testing::StartsWith("The first steamboat"));
  // Without chance the seed does not matter, whatever way chance is taken out.
  const Row greedy = text({"--temperature", "0"});
  EXPECT_EQ(text({"--temperature", "0", "--seed", "9"})[0]["text"], greedy[0]["text"]);
  EXPECT_EQ(text({"--top-k", "1", "--seed", "9"})[0]["text"], greedy[0]["text"]);
  const Row several = text({"--samples", "2", "--seed", "5"});
  ASSERT_EQ(several.size(), 2u);
  EXPECT_EQ(several[0]["text"], one[0]["text"]);
  EXPECT_EQ(several[1]["text"], other[0]["text"]) << "seeds count up";
}

TEST(Checkpoint, ListAndVerify) {
  const Row list = json_of({"checkpoint", "list", trained().string()});
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0]["step"], 10);
  EXPECT_EQ(list[1]["step"], 20);
  EXPECT_EQ(polysketch({"checkpoint", "verify", trained().string()}).exit_code, 0);
}

std::vector<Row> kept_results(const fs::path& run) {
  std::vector<Row> rows;
  if (!fs::exists(run / "evaluations.jsonl")) return rows;
  std::istringstream lines(read_text(run / "evaluations.jsonl"));
  for (std::string line; std::getline(lines, line);) rows.push_back(Row::parse(line));
  return rows;
}

TEST(Evaluate, KeepsItsResultInTheRun) {
  const fs::path run = workplace().run("measured");
  fs::copy(trained(), run, fs::copy_options::recursive);
  fs::remove(run / "evaluations.jsonl");
  const Row whole = json_of({"evaluate", "perplexity", run.string()});
  json_of({"evaluate", "perplexity", checkpoint_path(run, 10).string(), "--tokens", "300",
           "--stride", "16", "--set", "attention.degree=2"});
  json_of({"evaluate", "perplexity", run.string(), "--no-record"});
  const auto rows = kept_results(run);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["task"], "perplexity");
  EXPECT_EQ(rows[0]["step"], 20);
  EXPECT_EQ(rows[0]["tokens"], 20 * 1024);
  EXPECT_EQ(rows[0]["figures"]["perplexity"], whole["perplexity"]);
  EXPECT_EQ(rows[0]["figures"]["nats_per_token"], whole["nats_per_token"]);
  EXPECT_EQ(rows[0]["figures"]["bits_per_byte"], whole["bits_per_byte"]);
  EXPECT_EQ(rows[0]["figures"]["tokens_scored"], whole["tokens_scored"]);
  const Row measured{{"corpus", "text"},
                     {"split", "test"},
                     {"bytes", whole["bytes"]},
                     {"documents", 1},
                     {"window", 64},
                     {"stride", 64},
                     {"precision", "fp32"},
                     {"tokenizer", whole["tokenizer_sha256"].get<std::string>().substr(0, 12)}};
  EXPECT_EQ(rows[0]["measured"], measured);
  for (const char* key : {"device", "program"})
    EXPECT_NE(rows[0][key].get<std::string>(), "") << key;
  EXPECT_EQ(rows[1]["step"], 10);
  EXPECT_NE(rows[1]["checkpoint"], rows[0]["checkpoint"]);
  EXPECT_EQ(rows[1]["measured"]["first_tokens"], 300);
  EXPECT_EQ(rows[1]["measured"]["stride"], 16);
  EXPECT_EQ(rows[1]["measured"]["changed"], Row({"attention.degree: 4 -> 2"}));
  EXPECT_FALSE(rows[1]["figures"].contains("bits_per_byte")) << "only of a whole split";

  const fs::path page = workplace().path() / "measured.html";
  ASSERT_EQ(polysketch({"report", run.string(), "--output", page.string()}).exit_code, 0);
  EXPECT_THAT(read_text(page),
              testing::AllOf(HasSubstr("<h2>Evaluations</h2>"), HasSubstr("first 300 tokens"),
                             HasSubstr("attention.degree: 4 -&gt; 2")));
}

TEST(Evaluate, NeedsNoPlaceForItsResult) {
  const fs::path copy = workplace().path() / "copies" / "step-00000010";
  fs::create_directories(copy.parent_path());
  fs::copy(checkpoint_path(trained(), 10), copy, fs::copy_options::recursive);
  ProcessResult result = polysketch({"evaluate", "perplexity", copy.string()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_FALSE(fs::exists(workplace().path() / "evaluations.jsonl"));

  const fs::path run = workplace().run("sealed");
  fs::copy(trained(), run, fs::copy_options::recursive);
  fs::remove(run / "evaluations.jsonl");
  fs::create_directories(run / "evaluations.jsonl");  // root may write anywhere else
  result = polysketch({"evaluate", "perplexity", run.string()});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("perplexity"));
  EXPECT_THAT(result.err, HasSubstr("the result is not kept in the run"));
}

TEST(Report, OnePageOfARun) {
  const fs::path page = workplace().path() / "report.html";
  const ProcessResult result =
      polysketch({"report", trained().string(), "--output", page.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(read_text(page),
              testing::AllOf(HasSubstr("<svg"), HasSubstr("<td>polynomial, degree 4</td>"),
                             HasSubstr("<td>2 layers x 32 wide, 2 heads of 16</td>"),
                             HasSubstr("<td>finished</td>")));
}

TEST(Report, MakesSamples) {
  const fs::path run = workplace().run("sampled"), page = workplace().path() / "sampled.html";
  fs::copy(trained(), run, fs::copy_options::recursive);
  const auto report = [&](const Words& more) {
    return polysketch(with({"report", run.string(), "--output", page.string()}, more));
  };
  ASSERT_EQ(report({"--samples", "2"}).exit_code, 0);
  const std::string first = read_text(run / "samples.txt");
  EXPECT_THAT(first, testing::AllOf(testing::StartsWith("=== step 20\n\n--- start of a document "
                                                        "(seed 1)\n"),
                                    HasSubstr("\n--- start of a document (seed 2)\n")));
  ASSERT_EQ(report({"--samples", "1", "--prompt", "The first <steamboat>"}).exit_code, 0);
  const std::string second = read_text(run / "samples.txt");
  EXPECT_THAT(second, testing::StartsWith(first)) << "what is there stays";
  const Row generated = json_of({"generate", run.string(), "--prompt", "The first <steamboat>",
                                 "--temperature", "0.8", "--top-p", "0.95", "--seed", "1"});
  EXPECT_EQ(second.substr(first.size()), "--- The first <steamboat> (seed 1)\n" +
                                             generated[0]["text"].get<std::string>() + "\n\n")
      << "as generate writes it";
  EXPECT_THAT(read_text(page), HasSubstr("--- The first &lt;steamboat&gt; (seed 1)"));
  ASSERT_EQ(report({"--samples", "1"}).exit_code, 0);
  EXPECT_EQ(read_text(run / "samples.txt"), second) << "the same again";

  fs::remove(page);
  RunningProgram stopped({"report", run.string(), "--output", page.string(), "--samples", "1000"});
  std::this_thread::sleep_for(std::chrono::seconds(3));
  stopped.signal(SIGTERM);
  EXPECT_EQ(stopped.wait(), 75) << stopped.errors();
  EXPECT_THAT(stopped.errors(), HasSubstr("the samples that were whole by then"));
  EXPECT_TRUE(fs::exists(page));
  const std::string third = read_text(run / "samples.txt");
  EXPECT_THAT(third, testing::StartsWith(second));

  EXPECT_EQ(report({"--prompt", "x"}).exit_code, 64) << "--prompt is of --samples";
  EXPECT_EQ(report({"--samples", "0"}).exit_code, 64);
  const ProcessResult bad = report({"--samples", "1", "--prompt", "\xff"});
  EXPECT_EQ(bad.exit_code, 65) << bad.err;
  EXPECT_EQ(read_text(run / "samples.txt"), third);
}

}  // namespace
}  // namespace polysketch::test
