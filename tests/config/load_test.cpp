// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "config_helpers.hpp"

namespace polysketch {
namespace {

using test::error_of;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string source_of(const ResolvedConfig& resolved, const std::string& key) {
  for (const auto& [path, source] : resolved.sources) {
    if (path == key) return source;
  }
  return "no such key";
}

TEST(Load, NumbersUseTheirWholeText) {
  const std::pair<const char*, int64_t> good[] = {
      {"3_000", 3000}, {"10k", 10'000}, {"1Mi", 1 << 20}, {"1e5", 100'000}, {"125k", 125'000}};
  for (const auto& [text, value] : good) {
    EXPECT_EQ(load_config("", {std::string("training.steps=") + text, "schedule.warmup=1"})
                  .training.steps,
              value);
  }
  for (const char* text : {"1e-4", "010", ".nan", "-1", "9223372036854775808", "0", "1.5",
                           "'10000'", "0x10", "10000x", "1 0", "true", "+1"}) {
    EXPECT_THAT(error_of(std::string("training: {steps: ") + text + "}"),
                AllOf(StartsWith("c.yaml:1:19: training.steps: got '"),
                      HasSubstr(", want a count of steps, at least 1")))
        << text;
  }
  EXPECT_EQ(load_config("", {"schedule.peak=1e-4"}).schedule.peak, 1e-4);
  for (const char* text : {".nan", ".inf", "-1", "010", "1e-4x", "1e999", "'0.1'", "no", "3_000"}) {
    EXPECT_THAT(error_of(std::string("schedule: {peak: ") + text + "}"),
                StartsWith("c.yaml:1:18: schedule.peak: got '"))
        << text;
  }
  EXPECT_THAT(error_of("optimizer: {beta1: 1}"), HasSubstr("want a number, at least 0, below 1"));
  EXPECT_THAT(error_of("attention: {degree: 3}"),
              HasSubstr("attention.degree: got '3', want a count, 2 to 64, even"));
  EXPECT_EQ(load_config("", {"evaluation.tokens=all"}).evaluation.tokens, 0);
  EXPECT_THAT(error_of("evaluation: {tokens: al}"), HasSubstr("did you mean 'all'?"));
}

TEST(Load, AttentionThatDoesNotExist) {
  EXPECT_THAT(
      error_of("attention: {kind: polysketch, degree: 6}"),
      HasSubstr(
          "attention.degree: got 6, want a power of two, since attention.kind is polysketch"));
  EXPECT_EQ(error_of("attention: {kind: polynomial, degree: 6}"), "");
  EXPECT_THAT(error_of("attention: {sketch_size: 0}"),
              HasSubstr("attention.sketch_size: got '0', want a count, 1 to 1024"));
  EXPECT_THAT(error_of("attention: {block: 0}"),
              HasSubstr("attention.block: got '0', want a count of tokens, 1 to"));
  EXPECT_THAT(error_of("attention: {window: 0}"),
              HasSubstr("attention.window: got '0', want a count of tokens, at least 1"));
  EXPECT_THAT(error_of("attention: {kind: hedgehog, features: 33}"),
              HasSubstr("attention.features: got 33, want an even number"));
}

TEST(Load, FlagsChoicesAndTexts) {
  for (const char* text : {"yes", "no", "on", "True", "1", "'true'"}) {
    EXPECT_THAT(error_of(std::string("model: {recompute: ") + text + "}"),
                HasSubstr("want true or false"))
        << text;
  }
  EXPECT_EQ(error_of("attention: {kind: sofmax}"),
            "c.yaml:1:19: attention.kind: got 'sofmax', want softmax, polynomial, polysketch, "
            "performer, hedgehog, sliding_window or "
            "local_polynomial; did you mean 'softmax'?");
  for (const char* text : {"no", "Yes", "off", "true", "y"}) {
    EXPECT_THAT(error_of(std::string("run: {name: ") + text + "}"), HasSubstr("quotes")) << text;
    EXPECT_EQ(error_of(std::string("run: {name: '") + text + "'}"), "") << text;
  }
  EXPECT_EQ(load_config("", {"run.name=no"}).run.name, "no");
  for (const char* text : {"a/b", "''", "..", "'a b'", "-x", "é"})
    EXPECT_THAT(error_of(std::string("run: {name: ") + text + "}"), HasSubstr("run.name")) << text;
  for (const char* device : {"auto", "cpu", "cuda", "cuda:0", "cuda:12"})
    EXPECT_EQ(load_config("", {std::string("training.device=") + device}).training.device, device);
  for (const char* device : {"", "gpu", "cuda:", "cuda:01", "cuda:-1", "CPU", "cpu ", "cuda:0\n"}) {
    EXPECT_EQ(test::load_errors("", {std::string("training.device=") + device}).size(), 1u)
        << device;
  }
  EXPECT_THAT(error_of("run: {name: \"a\\nb\"}"), HasSubstr("got 'a\\x0ab'"))
      << "control characters are shown, not sent";
}

TEST(Load, ReportsEverythingAtOnce) {
  const std::string yaml =
      "model:\n  size: smal\n  layers: 5\n  layers: 6\ntrainig: {}\ntraining:\n  step: 5\n  "
      "precision: bf61\nschedule: [1]\n"
      "evaluation:\n  every:\nsteps: 3\nrun.name: x\n[a]: 1\n";
  EXPECT_EQ(
      error_of(yaml, {"training.micro_batch=3", "foo", "model=3"}),
      "c.yaml:2:9: model.size: got 'smal', want small, medium, large or custom; did you mean "
      "'small'?"
      " & c.yaml:4:3: model.layers: got this key again, want it once; the first is in line 3"
      " & c.yaml:5:1: trainig: unknown key; known keys: base, run, model, attention, data, "
      "training, optimizer, schedule, "
      "evaluation, "
      "checkpoint, logging, distributed; did you mean 'training'?"
      " & c.yaml:7:3: training.step: unknown key; known keys: batch_tokens, "
      "micro_batch_tokens, steps, precision, device, "
      "threads; did "
      "you mean 'training.steps'?"
      " & c.yaml:8:14: training.precision: got 'bf61', want fp32 or bf16; did you mean 'bf16'?"
      " & c.yaml:9:1: schedule: got a list, want some of its keys: kind, peak, warmup, "
      "final_fraction, decay_fraction"
      " & c.yaml:11:3: evaluation.every: got nothing, want a count of steps, at least 0"
      " & c.yaml:12:1: steps: unknown key; known keys: base, run, model, attention, data, "
      "training, optimizer, schedule, "
      "evaluation, "
      "checkpoint, logging, distributed; did you mean 'training.steps'?"
      " & c.yaml:13:1: run.name: got dots in a key, want each part on a level of its own, for "
      "example 'model: {size: small}'"
      " & c.yaml:14:1: top level: got a list, want a name before the colon"
      " & --set: training.micro_batch: unknown key; known keys: batch_tokens, "
      "micro_batch_tokens, steps, precision, device, "
      "threads; "
      "did you mean 'training.micro_batch_tokens'?"
      " & --set: 'foo': got no '=', want key=value, for example training.steps=1k"
      " & --set: model: got '3', want one of its keys: size, layers, width, heads, hidden, "
      "vocabulary, embedding_scale, dropout, recompute");
}

TEST(Load, KeysOfOtherTrainersAreAnsweredWithTheirNameHere) {
  const std::pair<const char*, const char*> pairs[] = {
      {"training.learning_rate", "schedule.peak"},
      {"optimizer.lr", "schedule.peak"},
      {"training.batch_size", "training.batch_tokens"},
      {"training.gradient_accumulation_steps", "training.micro_batch_tokens"},
      {"training.epochs", "training.steps"},
      {"training.max_steps", "training.steps"},
      {"model.num_layers", "model.layers"},
      {"model.n_layer", "model.layers"},
      {"model.n_head", "model.heads"},
      {"model.d_model", "model.width"},
      {"model.n_embd", "model.width"},
      {"model.vocab_size", "model.vocabulary"},
      {"model.block_size", "data.context"},
      {"data.seq_len", "data.context"},
      {"training.weight_decay", "optimizer.weight_decay"},
      {"training.grad_clip", "optimizer.clip"},
      {"training.warmup_steps", "schedule.warmup"},
      {"training.seed", "run.seed"},
      {"training.dtype", "training.precision"},
      {"run.device", "training.device"},
      {"run.output_dir", "run.directory"},
      {"training.output_dir", "run.directory"},
      {"evaluation.eval_interval", "evaluation.every"},
      {"checkpoint.save_steps", "checkpoint.every"},
      {"model.gradient_checkpointing", "model.recompute"},
      {"data.num_workers", "data.threads"},
      {"training.Learning-Rate", "schedule.peak"},
  };
  const std::vector<std::string> known = test::all_paths();
  for (const auto& [theirs, ours] : pairs) {
    EXPECT_TRUE(std::find(known.begin(), known.end(), ours) != known.end()) << ours;
    const auto question =
        AllOf(HasSubstr("unknown key"), HasSubstr("did you mean '" + std::string(ours) + "'"));
    EXPECT_THAT(error_of(test::nested_yaml(theirs, "1")), question) << theirs;
    EXPECT_THAT(error_of("run: {seed: 1}", {std::string(theirs) + "=1"}), question) << theirs;
    const std::string name = std::string(theirs).substr(std::string(theirs).find('.') + 1);
    EXPECT_THAT(error_of(name + ": 1"), question) << name << " outside every section";
  }
  EXPECT_THAT(error_of("training: {batch_size: 8}"),
              HasSubstr("did you mean 'training.batch_tokens' (in tokens: sequences times "
                        "data.context)?"));
  EXPECT_THAT(error_of("optim: {lr: 1}"), HasSubstr("did you mean 'optimizer"));
  EXPECT_THAT(error_of("train: {steps: 1}"), HasSubstr("did you mean 'training'?"));
}

TEST(Load, AFolderIsNoConfiguration) {
  const test::TemporaryFolder folder;
  const auto refusal = [&] {
    try {
      load_config(folder.path());
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(), folder.path().string() + ": is a folder: give a configuration file");
  test::write_text(folder / "config.yaml", "run: {seed: 1}\n");
  EXPECT_EQ(refusal(), folder.path().string() +
                           ": is a folder: give a configuration file, such as " +
                           (folder / "config.yaml").string());
}

TEST(Changed, IsTheShortestFileThatMeansTheSame) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a.yaml",
                   "model: {size: medium, layers: 0, heads: 8, dropout: 0}\nrun: {name: x}\n"
                   "data: {tokenizer: {path: t.model}, cache: c}\noptimizer: {clip: 1}\n");
  const ResolvedConfig resolved = resolve_config(folder / "a.yaml", {"training.steps=20k"});
  const std::string file = (folder / "a.yaml").string();
  EXPECT_EQ(changed_to_yaml(resolved),
            "run:\n  name: x  # " + file + ":2\nmodel:\n  size: medium  # " + file +
                ":1\n  heads: 8  # " + file + ":1\ndata:\n  tokenizer:\n    path: t.model  # " +
                file + ":3\n  cache: c  # " + file + ":3\ntraining:\n  steps: 20000  # --set\n");
  test::write_text(folder / "b.yaml", changed_to_yaml(resolved));
  EXPECT_THAT(config_difference(resolved.config, load_config(folder / "b.yaml")),
              testing::IsEmpty());
  EXPECT_EQ(changed_to_json(resolved).dump(),
            R"({"run":{"name":"x"},"model":{"size":"medium","heads":8},"data":{"tokenizer":)"
            R"({"path":"t.model"},"cache":"c"},"training":{"steps":20000}})");
  test::write_text(folder / "c.yaml", changed_to_yaml(resolve_config("")));
  EXPECT_THAT(config_difference(load_config(""), load_config(folder / "c.yaml")),
              testing::IsEmpty())
      << "nothing changed is a file as well";
}

TEST(Load, RulesBetweenKeys) {
  EXPECT_EQ(error_of("model: {heads: 7}"),
            "c.yaml:1:16: model.heads: got 7, want a divisor of model.width 768");
  EXPECT_EQ(error_of("model: {width: 780}"),
            "c.yaml:1:16: model.heads: got 12, want heads of even width, where 780 / 12 is 65");
  EXPECT_EQ(
      error_of("data: {context: 1000}"),
      "c.yaml:1:17: training.batch_tokens: got 1048576, want a multiple of data.context 1000");
  EXPECT_THAT(
      error_of("training: {micro_batch_tokens: 1000}"),
      HasSubstr("training.micro_batch_tokens: got 1000, want a multiple of data.context 1024"));
  EXPECT_EQ(error_of("training: {micro_batch_tokens: 3072}"),
            "c.yaml:1:32: training.micro_batch_tokens: got 3072, want a divisor of "
            "training.batch_tokens 1048576");
  EXPECT_EQ(error_of("training: {micro_batch_tokens: 4Ki}"), "");
  EXPECT_EQ(error_of("training: {steps: 100}"),
            "c.yaml:1:19: schedule.warmup: got 10000, want at most training.steps 100");
  EXPECT_EQ(error_of("training: {steps: 100}", {"schedule.warmup=100"}), "");
  EXPECT_EQ(error_of("training: {steps: x}"),
            "c.yaml:1:19: training.steps: got 'x', want a count of steps, at least 1")
      << "no rule on a bad value";
}

// docs/method.md §1.
TEST(Model, SizesAndOverrides) {
  const auto shape = [](const std::vector<std::string>& overrides) {
    const ModelConfig model = load_config("", overrides).model;
    return std::vector<int64_t>{model.layers, model.width, model.heads, model.hidden};
  };
  EXPECT_EQ(shape({}), (std::vector<int64_t>{12, 768, 12, 2048}));
  EXPECT_EQ(shape({"model.size=medium"}), (std::vector<int64_t>{24, 1024, 16, 2728}));
  EXPECT_EQ(shape({"model.size=large"}), (std::vector<int64_t>{36, 1280, 20, 3408}));
  EXPECT_EQ(shape({"model.layers=13"}), (std::vector<int64_t>{13, 768, 12, 2048}));
  EXPECT_EQ(shape({"model.size=large", "model.width=640", "model.heads=10"}),
            (std::vector<int64_t>{36, 640, 10, 1704}));
  EXPECT_EQ(shape({"model.size=custom", "model.layers=2", "model.width=32", "model.heads=2"}),
            (std::vector<int64_t>{2, 32, 2, 80}));
  EXPECT_EQ(shape({"model.size=custom", "model.layers=2", "model.width=32", "model.heads=2",
                   "model.hidden=7"}),
            (std::vector<int64_t>{2, 32, 2, 7}));
  EXPECT_EQ(
      error_of("model: {size: custom, layers: 2}"),
      "c.yaml:1:15: model.width: got 0 or nothing, want a number, since model.size is custom"
      " & c.yaml:1:15: model.heads: got 0 or nothing, want a number, since model.size is custom");
  EXPECT_THAT(error_of("model: {size: custom, layers: 1, width: 2, heads: 1}"),
              HasSubstr("model.hidden"));
}

TEST(Base, LaterWinsAndSourcesAreNamed) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a.yaml",
                   "model: {size: medium, layers: 2}\nrun:\n  seed: 1\ntraining: {steps: 20k}\n");
  test::write_text(folder / "sub/b.yaml", "base: ../a.yaml\nrun: {seed: 2}\n");
  test::write_text(folder / "sub/c.yaml", "run: {name: last}\nbase: b.yaml\nmodel: {layers: 3}\n");
  const ResolvedConfig resolved =
      resolve_config(folder / "sub/c.yaml", {"schedule.peak=1e-3", "schedule.peak=2e-3"});
  EXPECT_EQ(resolved.config.model.layers, 3);
  EXPECT_EQ(resolved.config.model.width, 1024);
  EXPECT_EQ(resolved.config.run.seed, 2);
  EXPECT_EQ(resolved.config.training.steps, 20'000);
  EXPECT_EQ(resolved.config.schedule.peak, 2e-3) << "the later override wins";
  EXPECT_EQ(resolved.config.run.directory, "runs/last");
  EXPECT_EQ(source_of(resolved, "model.layers"), (folder / "sub/c.yaml").string() + ":3");
  EXPECT_EQ(source_of(resolved, "run.seed"), (folder / "sub/b.yaml").string() + ":2");
  EXPECT_EQ(source_of(resolved, "training.steps"), (folder / "a.yaml").string() + ":4");
  EXPECT_EQ(source_of(resolved, "model.width"), "model.size medium");
  EXPECT_EQ(source_of(resolved, "model.hidden"), "8/3 of model.width 1024");
  EXPECT_EQ(source_of(resolved, "schedule.peak"), "--set");
  EXPECT_EQ(source_of(resolved, "run.directory"), "default");
  EXPECT_EQ(resolved.sources.size(), test::all_paths().size());
  EXPECT_THAT(to_yaml(resolved), HasSubstr("  peak: 0.002  # --set\n"));
}

TEST(Base, CirclesMissingFilesAndErrorsInside) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a.yaml", "base: b.yaml\n");
  test::write_text(folder / "b.yaml", "base: ./x/../a.yaml\nrun: {seed: x}\n");
  const auto circle = test::load_errors(folder / "a.yaml");
  ASSERT_EQ(circle.size(), 2u);
  EXPECT_THAT(circle[0], AllOf(StartsWith((folder / "b.yaml").string() + ":1:1: base: got"),
                               HasSubstr("leads back")));
  EXPECT_THAT(circle[1], StartsWith((folder / "b.yaml").string() + ":2:13: run.seed"));
  EXPECT_THAT(error_of("base: none.yaml"), HasSubstr("does not exist"));
  EXPECT_THAT(error_of("base: ."), HasSubstr("a folder"));
  EXPECT_THAT(error_of("base:"), HasSubstr("base: got nothing"));
  EXPECT_THAT(error_of("base: [a]"), HasSubstr("base: got a list"));
  EXPECT_THAT(error_of("base: a\nbase: b\n"), HasSubstr("c.yaml:2:1: base: got this key again"));
  EXPECT_THAT(error_of("run: {seed: 1}", {"base=x.yaml"}), HasSubstr("--set: base"));
}

TEST(Interpolation, ReplacesKeysAndFindsCircles) {
  EXPECT_EQ(
      load_config(
          "", {"run.directory=out/${model.size}-${training.steps}-${attention.kind}/${run.name}"})
          .run.directory,
      "out/small-125000-softmax/run");
  EXPECT_EQ(load_config(
                "", {"data.root=/x", "data.cache=${data.root}/c", "run.directory=${data.cache}/r"})
                .run.directory,
            "/x/c/r");
  EXPECT_EQ(load_config("", {"data.root=a$b", "data.cache=$"}).data.root, "a$b");
  EXPECT_THAT(
      error_of("run: {directory: 'a/${run.nam}'}"),
      AllOf(HasSubstr("c.yaml:1:18: run.directory"), HasSubstr("did you mean 'run.name'?")));
  EXPECT_THAT(error_of("run: {directory: 'a/${run.name'}"), HasSubstr("run.directory"));
  EXPECT_THAT(error_of("data: {root: '${data.cache}', cache: '${data.root}'}"),
              HasSubstr("lead back"));
  EXPECT_THAT(error_of("data: {root: '${data.root}'}"), HasSubstr("lead back"));
  EXPECT_THAT(error_of("run: {name: '${run.directory}', directory: a/b}"),
              HasSubstr("run.name: got 'a/b'"))
      << "checked once complete";
  std::string doubling = std::string(3000, 'x');
  EXPECT_THAT(error_of("data: {root: " + doubling + ", cache: '${data.root}${data.root}'}"),
              HasSubstr("4096"));
}

TEST(Load, FromAPipe) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const std::string yaml = "run: {seed: 9}\n";
    EXPECT_EQ(write(ends[1], yaml.data(), yaml.size()), static_cast<ssize_t>(yaml.size()));
    close(ends[1]);
  });
  EXPECT_EQ(load_config("/dev/fd/" + std::to_string(ends[0])).run.seed, 9);
  writer.join();
  close(ends[0]);
}

TEST(Load, MissingFileIs66) {
  const test::TemporaryFolder folder;
  try {
    load_config(folder / "none.yaml");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
  }
}

TEST(Difference, NamesKeyAndBothValues) {
  Config a = load_config(""), b = a;
  EXPECT_THAT(config_difference(a, b), testing::IsEmpty());
  b.schedule.peak = 3e-4;
  b.attention.kind = AttentionKind::polynomial;
  EXPECT_THAT(config_difference(a, b), testing::ElementsAre("attention.kind: softmax -> polynomial",
                                                            "schedule.peak: 0.0007 -> 0.0003"));
}

}  // namespace
}  // namespace polysketch
