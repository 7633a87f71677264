// SPDX-License-Identifier: Apache-2.0
// `plan` for many GPUs: figures that agree with each other and with the formulas, what is measured
// fed back, and what is refused.
#include <gmock/gmock.h>

#include <cmath>

#include "acceptance/workplace.hpp"
#include "helpers/tolerances.hpp"

namespace polysketch::test {
namespace {

using testing::HasSubstr;
using tolerance::kReordered64;

Words with(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

const Words kSmall{"configs/pg19/small-8k-learned-local-32.yaml"};
const Words kMedium{"configs/c4/medium-8k-learned-local-32.yaml", "--set",
                    "training.batch_tokens=1Mi"};
const Words kLarge{"configs/c4/large-2k-learned-local-32.yaml"};
const Words kMany{"--nodes", "16", "--gpus", "8", "--interconnect", "400Gb"};

ProcessResult plan(const Words& words) {
  Words command = with({"plan"}, words);
  command[1] = (source_folder() / command[1]).string();
  return polysketch(command);
}

Row plan_json(const Words& words) {
  const ProcessResult result = plan(with(words, {"--json"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  Row row = Row::parse(result.out, nullptr, false);
  EXPECT_FALSE(row.is_discarded()) << result.out;
  return row;
}

Row cluster(const Words& words) { return plan_json(words).at("cluster"); }

void expect_equal(double a, double b, const std::string& what) {
  EXPECT_NEAR(a, b, kReordered64 * std::abs(b)) << what;
}

TEST(PlanForManyGpus, SmallMediumLarge) {
  double last = 0;
  for (const Words& words : {kSmall, kMedium, kLarge}) {
    const Row whole = plan_json(with(words, kMany)), c = whole.at("cluster");
    const auto n = [&](const char* key) { return c.at(key).get<double>(); };
    const double parameters = whole.at("parameters").get<double>(), batch = n("batch_tokens");
    EXPECT_EQ(c["gpus"], 128);
    EXPECT_EQ(c["prediction"], true);
    expect_equal(n("gradient_bytes"), 4 * parameters, "fp32");
    // By hand: 40 % of 989.4 TFLOP/s; a pass inside at 450 GB/s and 5 us, one between nodes at 50
    // GB/s and 10 us, both twice.
    expect_equal(n("compute_seconds"),
                 batch / 128 * whole.at("flops_per_token").get<double>() / (0.4 * 989.4e12),
                 "compute");
    const double bytes = n("gradient_bytes");
    expect_equal(n("reduce_scatter_seconds"),
                 7 * (5e-6 + bytes / (8 * 450e9)) + 15 * (10e-6 + bytes / (16 * 50e9)),
                 "reduce-scatter");
    expect_equal(n("all_reduce_seconds"), 2 * n("reduce_scatter_seconds"), "all-reduce");
    expect_equal(n("optimizer_seconds"), 42 * parameters / 3.35e12, "optimiser");
    expect_equal(n("communication_seconds"), n("hidden_seconds") + n("exposed_seconds"),
                 "hidden and exposed");
    expect_equal(n("step_seconds"),
                 n("compute_seconds") + n("exposed_seconds") + n("optimizer_seconds"), "step");
    expect_equal(n("tokens_per_second") * n("step_seconds"), batch, "speed");
    expect_equal(n("tokens_per_second_per_gpu"),
                 n("scaling_efficiency") * n("tokens_per_second_of_one_gpu"), "efficiency");
    expect_equal(n("run_seconds"), n("step_seconds") * n("steps"), "run");
    EXPECT_EQ(n("data_wait_seconds"), 0);
    EXPECT_GT(n("hidden_seconds"), 0);
    EXPECT_GT(n("exposed_seconds"), 0);
    EXPECT_LT(n("scaling_efficiency"), 1);
    int64_t elements = 0;
    for (const Row& bucket : c.at("timeline")) elements += bucket.at("elements").get<int64_t>();
    EXPECT_EQ(elements % (128 * 16384), 0) << "every process has whole blocks of the norm";
    EXPECT_LT(elements - whole.at("parameters").get<int64_t>(), 128 * 16384)
        << "every gradient travels once, and some padding";
    EXPECT_EQ(c.at("timeline").size(), c.at("buckets").get<size_t>());
    const double backward_end = c.at("timeline").back().at("ready").get<double>();
    expect_equal(c.at("timeline").back().at("end").get<double>() - backward_end,
                 n("exposed_seconds"), "exposed");
    double embedding = 0;  // buckets that are complete with backward hold all of it
    for (const Row& bucket : c.at("timeline"))
      embedding += bucket.at("ready") == backward_end ? bucket.at("elements").get<double>() : 0;
    EXPECT_GE(embedding, whole.at("embedding_parameters").get<double>() - 32000);
    EXPECT_EQ(c.at("memory").at("weight_bytes"), whole.at("weight_bytes"));
    EXPECT_EQ(c.at("memory").at("optimizer_bytes"), whole.at("optimizer_bytes"));
    EXPECT_LT(c.at("memory_sharded").at("total_bytes").get<double>(),
              c.at("memory").at("total_bytes").get<double>());
    EXPECT_GT(n("all_reduce_seconds"), last) << "a larger model has more to say";
    last = n("all_reduce_seconds");
  }
}

TEST(PlanForManyGpus, EveryFlagCounts) {
  const double base = cluster(with(kSmall, kMany)).at("step_seconds").get<double>();
  const auto step = [&](const Words& more) {
    return cluster(with(with(kSmall, kMany), more)).at("step_seconds").get<double>();
  };
  for (const Words& worse :
       {Words{"--mfu", "0.3"}, Words{"--latency", "1ms"}, Words{"--intranode", "100GB"},
        Words{"--intranode-latency", "1ms"}, Words{"--overlap", "0.5"}, Words{"--gpu", "A100"},
        Words{"--memory-bandwidth", "1TB"}, Words{"--route", "ring"},
        Words{"--tokens-per-second", "100k"}, Words{"--set", "distributed.bucket_bytes=1Mi"}})
    EXPECT_GT(step(worse), base) << worse[0] << " " << worse[1];
  for (const Words& better :
       {Words{"--links", "8"}, Words{"--latency", "0s"}, Words{"--gpu", "H200"},
        Words{"--mfu", "0.5"}, Words{"--set", "distributed.reduce_type=bf16"}})
    EXPECT_LT(step(better), base) << better[0] << " " << better[1];

  const Row sharded =
      cluster(with(with(kSmall, kMany), {"--set", "distributed.shard_optimizer=true"}));
  EXPECT_GT(sharded.at("parameter_gather_seconds").get<double>(), 0);
  EXPECT_GT(sharded.at("parameter_gather_seconds").get<double>(),
            sharded.at("all_gather_seconds").get<double>())
      << "bucket by bucket";
  expect_equal(sharded.at("step_seconds").get<double>(),
               sharded.at("compute_seconds").get<double>() +
                   sharded.at("exposed_seconds").get<double>() +
                   sharded.at("optimizer_seconds").get<double>() +
                   sharded.at("parameter_gather_seconds").get<double>(),
               "step");
  EXPECT_NEAR(
      cluster(with(with(kSmall, kMany), {"--overlap", "0"})).at("hidden_seconds").get<double>(), 0,
      1e-15)
      << "rounding";

  const Row one = cluster(with(kSmall, {"--gpus", "1"}));
  EXPECT_EQ(one.at("communication_seconds"), 0.0);
  EXPECT_TRUE(one.at("hidden_fraction").is_null());
  EXPECT_EQ(one.at("scaling_efficiency"), 1.0);
  EXPECT_FALSE(plan_json(kSmall).contains("cluster")) << "only where it is asked for";
}

TEST(PlanForManyGpus, MicroBatches) {
  // 128 sequences on two GPUs are 64 on each: 16 micro-batches of 4. Only the backward of the last
  // hides communication.
  const Words two =
      with(kSmall, {"--gpus", "2", "--intranode", "1GB", "--set", "training.batch_tokens=1Mi",
                    "--set", "training.micro_batch_tokens=32Ki"});
  const Row c = cluster(two);
  EXPECT_EQ(c.at("micro_batches"), 16);
  const Row whole = cluster(with(
      kSmall, {"--gpus", "2", "--intranode", "1GB", "--set", "training.micro_batch_tokens=512Ki"}));
  EXPECT_EQ(whole.at("micro_batches"), 1);
  EXPECT_GT(whole.at("hidden_seconds").get<double>(), c.at("hidden_seconds").get<double>());
  expect_equal(whole.at("compute_seconds").get<double>(), c.at("compute_seconds").get<double>(),
               "the same work");
}

TEST(PlanForManyGpus, Scaling) {
  const Row c = cluster(with(with(kLarge, kMany), {"--scaling"})), &scaling = c.at("scaling");
  for (const char* kind : {"strong", "weak"}) {
    const Row& rows = scaling.at(kind);
    ASSERT_EQ(rows.size(), 8u);
    double last = 1;
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(rows[i].at("gpus"), 1 << i);
      EXPECT_LE(rows[i].at("efficiency").get<double>(), last);
      last = rows[i].at("efficiency").get<double>();
      EXPECT_EQ(rows[i].at("batch_tokens"), std::string(kind) == "strong" ? 524288 : 4096 << i);
    }
    EXPECT_EQ(rows[0].at("efficiency"), 1.0);
    EXPECT_EQ(rows[7].at("step_seconds"), c.at("step_seconds"))
        << "the last row is the whole cluster";
  }
  EXPECT_EQ(scaling.at("strong")[7].at("efficiency"), c.at("scaling_efficiency"));
  // 3 nodes of 2, a step of 6 sequences: it divides among 1, 2 and 6 GPUs, not among the 4 of two
  // nodes.
  const Row odd = cluster(
      with(kLarge, {"--nodes", "3", "--gpus", "2", "--interconnect", "1Gb", "--scaling", "--set",
                    "training.batch_tokens=12Ki", "--set", "training.micro_batch_tokens=0"}));
  std::vector<int64_t> gpus;
  for (const Row& row : odd.at("scaling").at("strong"))
    gpus.push_back(row.at("gpus").get<int64_t>());
  EXPECT_EQ(gpus, (std::vector<int64_t>{1, 2, 6}));
}

TEST(PlanForManyGpus, ReadsWhatWasMeasured) {
  TemporaryFolder folder;
  const std::string collectives = (folder / "collectives.json").string(),
                    step = (folder / "step.json").string();
  // 16 members, 20 us a message, 25 GB/s: what the formula gives for all-reduce, and for the two
  // halves.
  Row sizes = Row::array();
  for (const double bytes : {65536.0, 1048576.0, 67108864.0}) {
    const double pass = 15 * (20e-6 + bytes / 16 / 25e9);
    sizes.push_back({{"bytes", bytes},
                     {"all_reduce_seconds", 2 * pass},
                     {"reduce_scatter_seconds", pass},
                     {"all_gather_seconds", nullptr}});
  }
  write_text(collectives, Row{{"transport", "nccl"}, {"world", 16}, {"sizes", sizes}}.dump());
  const Words measured{"--nodes", "16", "--gpus", "8", "--collectives", collectives};
  const Row fitted = cluster(with(kSmall, measured));
  EXPECT_NEAR(fitted.at("link_between_nodes").at("latency_seconds").get<double>(), 20e-6, 1e-12);
  EXPECT_NEAR(fitted.at("link_between_nodes").at("bytes_per_second").get<double>(), 25e9, 1e3);
  const Row told = cluster(with(
      kSmall, {"--nodes", "16", "--gpus", "8", "--interconnect", "200Gb", "--latency", "20us"}));
  EXPECT_NEAR(fitted.at("step_seconds").get<double>(), told.at("step_seconds").get<double>(), 1e-9);
  const Row inside = cluster(with(kSmall, {"--gpus", "8", "--collectives", collectives}));
  EXPECT_NEAR(inside.at("link_inside_node").at("bytes_per_second").get<double>(), 25e9, 1e3)
      << "one node: its own link was measured";

  // A step that the program itself measured, of the same configuration.
  const Words tiny{workplace().config().string(), "--set", "training.batch_tokens=1024"};
  const ProcessResult bench =
      polysketch(with(with({"bench", "step"}, tiny), {"--steps", "2", "--warmup", "1", "--json"}));
  ASSERT_EQ(bench.exit_code, 0) << bench.err;
  write_text(step, bench.out);
  const Row b = Row::parse(bench.out);
  const auto tiny_plan = [&](const Words& more) {
    return polysketch(with(with({"plan"}, tiny), with(more, {"--step", step, "--json"})));
  };
  const ProcessResult result = tiny_plan({"--gpus", "4"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Row c = Row::parse(result.out).at("cluster");
  const double optimizer = 36 * b.at("parameters").get<double>() / 3.35e12;
  expect_equal(c.at("compute_seconds").get<double>(),
               (b.at("seconds_per_step").get<double>() - optimizer) / 4, "a quarter of the tokens");
  Row two = b;
  two["processes"] = 2;
  write_text(step, two.dump());
  EXPECT_THAT(tiny_plan({"--gpus", "4"}).err, HasSubstr("was measured on 2 processes"));
  write_text(step, bench.out);
  const ProcessResult other = tiny_plan({"--set", "data.context=128"});
  EXPECT_EQ(other.exit_code, 65);
  EXPECT_THAT(other.err, HasSubstr("was measured with context 64, the configuration has 128"));
  EXPECT_EQ(tiny_plan({"--memory-bandwidth", "1B"}).exit_code, 65)
      << "the optimiser alone would take longer";
}

TEST(PlanForManyGpus, SaysWhatIsWrong) {
  TemporaryFolder folder;
  const auto check = [&](const Words& more, int code, const std::string& part) {
    const ProcessResult result = plan(with(kSmall, more));
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_THAT(result.err, testing::StartsWith(fmt::format("ERROR {}: ", code)));
    EXPECT_THAT(result.err, HasSubstr(part));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_EQ(result.out, "");
  };
  check({"--nodes", "3", "--gpus", "8", "--interconnect", "1Gb"}, 78,
        "do not divide among 24 processes: use 1, 2, 4, 8, 16, 32, 64 or 128 of them");
  check({"--nodes", "2"}, 64, "--interconnect: say what a link between nodes carries");
  check({"--nodes", "2", "--interconnect", "400"}, 64, "--interconnect: got '400'");
  check({"--gpus", "2", "--intranode", "fast"}, 64, "--intranode: got 'fast'");
  check({"--latency", "5"}, 64, "--latency: got '5'");
  check({"--intranode-latency", "5m"}, 64, "--intranode-latency: got '5m'");
  check({"--memory-bandwidth", "1T"}, 64, "--memory-bandwidth: got '1T'");
  check({"--nodes", "0"}, 64, "--nodes");
  check({"--gpu", "V100"}, 64, "H100");
  check({"--mfu", "0"}, 64, "--mfu");
  check({"--overlap", "1.1"}, 64, "--overlap");
  check({"--route", "tree"}, 64, "hierarchical");
  check({"--mfu", "0.3", "--tokens-per-second", "10k"}, 64, "--mfu");
  const std::string file = (folder / "x.json").string();
  for (const char* option : {"--collectives", "--step"}) {
    check({option, file}, 66, "x.json: no such file");
  }
  const auto wrong = [&](const std::string& text, const std::string& part) {
    write_text(file, text);
    check({"--gpus", "2", "--collectives", file}, 65, part);
  };
  wrong("", "is not one JSON object");
  wrong("[]", "is not one JSON object");
  wrong("{}", "world is not a number above 0");
  wrong(R"({"transport": "gloo", "world": 1, "sizes": []})", "at least 2 processes");
  wrong(R"({"world": 2, "sizes": []})", "transport is missing");
  wrong(R"({"transport": "gloo", "world": 2, "sizes": 3})", "sizes is not a list");
  wrong(R"({"transport": "gloo", "world": 2, "sizes": [{"bytes": 8, "all_reduce_seconds": 1}]})",
        "two sizes at least");
  wrong(R"({"transport": "gloo", "world": 2, "sizes": [{"bytes": 8, "all_reduce_seconds": -1}]})",
        "all_reduce_seconds is not a number above 0");
  wrong(
      R"({"transport": "gloo", "world": 2, "sizes": [{"bytes": 8, "all_reduce_seconds": 9}, {"bytes": 80, "all_reduce_seconds": 1}]})",
      "say nothing of the bandwidth");
}

TEST(PlanForManyGpus, TellsPeopleWhatItAssumes) {
  const ProcessResult result = plan(with(with(kSmall, kMany), {"--scaling"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("prediction, not a measurement: 16 x 8 H100\n"));
  EXPECT_THAT(result.out, HasSubstr("strong scaling"));
  const Row c = cluster(with(kSmall, kMany));
  EXPECT_GE(c.at("assumptions").size(), 12u);
  for (const Row& one : c.at("assumptions"))
    EXPECT_THAT(result.out, HasSubstr("\n  " + one.at("assumption").get<std::string>() + " ["));
  EXPECT_THAT(result.out, HasSubstr("\n  data never has to be waited for"));
  EXPECT_THAT(plan(with(kSmall, {"--links", "2"})).out,
              HasSubstr("--links: nothing goes that way here"));
  EXPECT_THAT(
      plan(with(kLarge, {"--gpu", "L40S", "--set", "training.micro_batch_tokens=512Ki"})).out,
      HasSubstr(": MORE than the "));
  EXPECT_THAT(plan(with(kSmall, {"--gpus", "2", "--set", "distributed.reduce=canonical"})).out,
              HasSubstr("canonical reduction: the gradients of all 8 shards"));
}

}  // namespace
}  // namespace polysketch::test
