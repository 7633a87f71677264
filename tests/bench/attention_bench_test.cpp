// SPDX-License-Identifier: Apache-2.0
#include "bench/attention_bench.hpp"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <sstream>
#include <thread>

#include "bench/attention_report.hpp"
#include "device/allocation_meter.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

using testing::HasSubstr;

constexpr const char* every_kind =
    "softmax,polynomial,polynomial:p=2,polysketch:learned,polysketch:learned-local:16,polysketch:"
    "random,polysketch:random-local,performer,"
    "hedgehog,sliding_window,local_polynomial";

AttentionVariant parse_one(const std::string& name) {
  return parse_attention_variants(name, {}).at(0);
}

std::string refusal_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    return error.what();
  }
  return "";
}

TEST(AttentionVariants, SayWhatDiffersFromTheConfiguration) {
  AttentionConfig base;
  base.degree = 8;
  base.block = 256;
  base.sketch = SketchKind::random;
  base.local = LocalAttention::none;
  const auto variants = parse_attention_variants(
      "polynomial,polynomial:p=2,polysketch,polysketch:learned-local:64:p=4,polysketch:random",
      base);
  ASSERT_EQ(variants.size(), 5u);
  EXPECT_EQ(variants[0].config.kind, AttentionKind::polynomial);
  EXPECT_EQ(variants[0].config.degree, 8);
  EXPECT_EQ(variants[1].config.degree, 2);
  EXPECT_EQ(variants[2].config.kind, AttentionKind::polysketch);
  EXPECT_EQ(variants[2].config.sketch, SketchKind::random);
  EXPECT_EQ(variants[2].config.local, LocalAttention::none);
  EXPECT_EQ(variants[3].name, "polysketch:learned-local:64:p=4");
  EXPECT_EQ(variants[3].config.sketch, SketchKind::learned);
  EXPECT_EQ(variants[3].config.local, LocalAttention::exact);
  EXPECT_EQ(variants[3].config.sketch_size, 64);
  EXPECT_EQ(variants[3].config.degree, 4);
  EXPECT_EQ(variants[3].config.block, 256);
  EXPECT_EQ(parse_one("polysketch:random").config.local, LocalAttention::none)
      << "the configuration's default is exact";
}

TEST(AttentionVariants, RefuseWhatTheyDoNotKnow) {
  const auto refusal = [](const std::string& text) {
    return refusal_of([&] { parse_attention_variants(text, {}); });
  };
  EXPECT_THAT(refusal("softmax,polysktch"),
              testing::AllOf(HasSubstr("'polysktch'"), HasSubstr("did you mean 'polysketch'?"),
                             HasSubstr("hedgehog")));
  EXPECT_THAT(refusal("polysketch:learnd"), HasSubstr("did you mean 'learned'?"));
  EXPECT_THAT(refusal("polynomial:p=3"), HasSubstr("even"));
  EXPECT_THAT(refusal("polysketch:learned:0"), HasSubstr("got '0'"));
  EXPECT_THAT(refusal("softmax,softmax"), HasSubstr("twice"));
  for (const char* text : {"", ",", "softmax,", "softmax:p=2", "performer:64", "polysketch:64",
                           "polysketch:learned:random", "polysketch:", "polysketch:-local",
                           "polynomial:p=", "polysketch:learned:99999"})
    EXPECT_THAT(refusal(text), HasSubstr("--kinds: ")) << text;
}

TEST(Lengths, AreCountsInOrder) {
  EXPECT_EQ(parse_lengths("4Ki,512,1k"), (std::vector<int64_t>{512, 1000, 4096}));
  for (const char* text : {"", "0", "-1", "1,,2", "1,", "x", "1.5", "32Mi", "64,64"})
    EXPECT_THAT(refusal_of([&] { parse_lengths(text); }), HasSubstr("--lengths: ")) << text;
}

AttentionFigures timed(const std::string& kind, int64_t length, double seconds) {
  AttentionFigures figures;
  figures.kind = kind;
  figures.length = figures.tokens = length;
  figures.both = figures.forward = {seconds, seconds, seconds};
  return figures;
}

AttentionFigures left_out(const std::string& kind, int64_t length) {
  AttentionFigures figures;
  figures.kind = kind;
  figures.length = figures.tokens = length;
  figures.left_out = "a reason";
  return figures;
}

TEST(Crossovers, AreWhereTheLinesMeetOnLogarithmicAxes) {
  // softmax takes T² and the other one 3000 T: they meet at 3000, where both lines are straight.
  std::vector<AttentionFigures> figures;
  for (const double t : {512.0, 2048.0, 4096.0, 16384.0}) {
    figures.push_back(timed("softmax", static_cast<int64_t>(t), t * t));
    figures.push_back(timed("linear", static_cast<int64_t>(t), 3000 * t));
    figures.push_back(timed("fast", static_cast<int64_t>(t), 0.5 * t * t));
    figures.push_back(timed("slow", static_cast<int64_t>(t), 2 * t * t));
    figures.push_back(timed("wavering", static_cast<int64_t>(t), (t == 2048 ? 2 : 0.5) * t * t));
    figures.push_back(t < 10'000 ? timed("short", static_cast<int64_t>(t), 3000 * t)
                                 : left_out("short", 16384));
    figures.push_back(left_out("never", static_cast<int64_t>(t)));
  }
  const auto crossovers = find_crossovers(figures);
  ASSERT_EQ(crossovers.size(), 6u);
  EXPECT_EQ(crossovers[0].kind, "linear");
  EXPECT_EQ(crossovers[0].found, Crossover::Found::between);
  EXPECT_NEAR(crossovers[0].length, 3000, 1e-6);
  EXPECT_EQ(crossovers[1].found, Crossover::Found::at_the_shortest);
  EXPECT_EQ(crossovers[1].length, 512);
  EXPECT_EQ(crossovers[2].found, Crossover::Found::not_reached);
  EXPECT_EQ(crossovers[2].longest, 16384);
  EXPECT_EQ(crossovers[3].found, Crossover::Found::between);
  EXPECT_NEAR(crossovers[3].length, std::sqrt(2048.0 * 4096.0), 1e-6)
      << "the last time it gets ahead counts";
  EXPECT_NEAR(crossovers[4].length, 3000, 1e-6);
  EXPECT_EQ(crossovers[4].longest, 4096);
  EXPECT_EQ(crossovers[5].found, Crossover::Found::unknown);

  std::erase_if(figures, [](const AttentionFigures& f) { return f.kind == "softmax"; });
  EXPECT_TRUE(find_crossovers(figures).empty());

  const Plot plot = crossover_plot(figures);
  ASSERT_EQ(plot.series.size(), 6u);
  EXPECT_EQ(plot.series[0].points.size(), 4u);
  EXPECT_TRUE(plot.series[5].points.empty());
  EXPECT_THAT(plot.x_ticks,
              testing::ElementsAre(testing::Pair(512, "512"), testing::Pair(2048, "2Ki"),
                                   testing::Pair(4096, "4Ki"), testing::Pair(16384, "16Ki")));
}

TEST(AllocationMeter, CountsEveryTensorOfEveryThread) {
  const at::Tensor before = at::zeros({1000});
  {
    const AllocationMeter meter(at::kCPU);
    EXPECT_EQ(meter.peak_bytes(), 0);
    at::Tensor a = at::zeros({1000});
    a = at::Tensor();
    const at::Tensor b = at::zeros({3000});
    std::thread([] { at::zeros({500}); }).join();
    EXPECT_EQ(meter.peak_bytes(), 4 * 3500);
  }
  at::Tensor survivor;
  void* raw = nullptr;
  {
    const AllocationMeter meter(at::kCPU);
    survivor = at::ones({10});
    void* freed = c10::GetCPUAllocator()->raw_allocate(64);  // as LibTorch's bf16 products do
    c10::GetCPUAllocator()->raw_deallocate(freed);
    raw = c10::GetCPUAllocator()->raw_allocate(64);
    EXPECT_EQ(meter.peak_bytes(), 40 + 64);
  }
  c10::GetCPUAllocator()->raw_deallocate(raw);
  EXPECT_EQ(survivor.sum().item<float>(), 10) << "memory outlives its meter";
}

AttentionBenchOptions tiny(const std::string& kinds) {
  AttentionConfig config;
  config.block = 32;
  config.window = 16;
  config.features = 16;
  config.sketch_size = 8;
  AttentionBenchOptions options;
  options.variants = parse_attention_variants(kinds, config);
  options.lengths = {64};
  options.shape = {2, 16};
  options.batch = 2;
  options.rounds = 2;
  return options;
}

class EveryKind : public testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, EveryKind, testing::Values(at::kFloat, at::kBFloat16));

TEST_P(EveryKind, HasFiguresThatArePositiveNumbers) {
  AttentionBenchOptions options = tiny(every_kind);
  options.type = GetParam();
  const auto figures = bench_attention(options);
  ASSERT_EQ(figures.size(), options.variants.size());
  for (const AttentionFigures& f : figures) {
    SCOPED_TRACE(f.kind);
    EXPECT_EQ(f.left_out, "");
    EXPECT_EQ(f.tokens, 128);
    for (const double value :
         {f.forward.median, f.forward.least, f.forward.most, f.both.median, f.both.least,
          f.both.most, f.tokens_per_second(), f.microseconds_per_token(), f.flops_per_second(),
          f.forward_flops.causal, f.forward_flops.full, f.flops.causal, f.flops.full,
          static_cast<double>(f.forward_peak_bytes), static_cast<double>(f.peak_bytes)}) {
      EXPECT_TRUE(std::isfinite(value));
      EXPECT_GT(value, 0);
    }
    EXPECT_LE(f.both.least, f.both.median);
    EXPECT_LE(f.both.median, f.both.most);
    EXPECT_GT(f.flops.causal, f.forward_flops.causal);
    EXPECT_GE(f.peak_bytes, 4 * 128 * 32 * static_cast<int64_t>(at::elementSize(options.type)))
        << "the output and the gradients of q, k and v";
  }
}

/// The numbers of a printed row, behind length and name.
std::vector<double> numbers(std::string row) {
  std::erase(row, ',');
  std::istringstream words(row);
  std::vector<double> found;
  std::string word, name;
  words >> word >> name;
  const std::map<std::string, double> units{{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}};
  const std::map<char, double> letters{{'k', 1e3}, {'M', 1e6}, {'G', 1e9}};
  while (words >> word) {
    if (const auto unit = units.find(word); unit != units.end()) {
      found.back() *= unit->second;
    } else {
      const auto letter = letters.find(word.back());
      found.push_back(std::stod(word) * (letter == letters.end() ? 1 : letter->second));
    }
  }
  return found;
}

TEST(AttentionBench, JsonAndTablesHoldTheSameNumbers) {
  AttentionBenchOptions options = tiny("softmax,polynomial,performer");
  options.lengths = {32, 64};
  const auto figures = bench_attention(options);
  const auto json = crossover_json(options, figures);
  EXPECT_EQ(json["heads"], 2);
  EXPECT_EQ(json["precision"], "fp32");
  EXPECT_THAT(attention_bench_heading(options),
              HasSubstr(json["softmax_backend"].get<std::string>()));
  EXPECT_EQ(json["crossovers"].size(), 2u);

  std::istringstream table(attention_bench_table(figures));
  std::string line;
  std::getline(table, line);
  for (const auto& row : json["figures"]) {
    std::getline(table, line);
    EXPECT_THAT(line, HasSubstr(row["kind"].get<std::string>()));
    const auto shown = numbers(line);
    const std::vector<std::pair<const char*, double>> columns{{"forward_seconds", 1e3},
                                                              {"seconds", 1e3},
                                                              {"seconds_min", 1e3},
                                                              {"seconds_max", 1e3},
                                                              {"tokens_per_second", 1},
                                                              {"forward_peak_bytes", 1},
                                                              {"peak_bytes", 1},
                                                              {"flops_causal", 1e-9},
                                                              {"flops_per_second", 1e-9},
                                                              {"speed_over_softmax", 1},
                                                              {"forward_speed_over_softmax", 1}};
    ASSERT_EQ(shown.size(), columns.size()) << line;
    for (size_t i = 0; i < columns.size(); ++i) {
      const double exact = row[columns[i].first].get<double>() * columns[i].second;
      EXPECT_NEAR(shown[i], exact, 0.006 * exact + 1e-12) << columns[i].first << ": " << line;
    }
  }

  std::istringstream grid(crossover_table(figures));
  std::getline(grid, line);
  std::getline(grid, line);
  for (size_t row = 0; row < 2; ++row) {
    std::getline(grid, line);
    const auto shown = numbers("row " + line);  // behind the length come the three kinds
    ASSERT_EQ(shown.size(), 3u) << line;
    for (size_t kind = 0; kind < 3; ++kind) {
      const double exact = json["figures"][3 * row + kind]["microseconds_per_token"].get<double>();
      EXPECT_NEAR(shown[kind], exact, 0.006 * exact);
    }
  }
}

TEST(AttentionBench, LeavesOutWhatWouldTakeTooLongOrTooMuch) {
  AttentionBenchOptions options = tiny("softmax,polynomial");
  options.limit_seconds = 1e-9;
  options.lengths = {2048, 1 << 20};
  int64_t last = 0;
  options.progress = [&](int64_t done, const std::string&) { last = done; };
  for (const AttentionFigures& f : bench_attention(options))
    EXPECT_THAT(f.left_out, HasSubstr("would take about")) << f.kind << f.length;
  EXPECT_EQ(last, progress_steps(options) - options.rounds - 1)
      << "what is left out counts as done";

  options.limit_seconds = 0;
  options.memory_limit = 1 << 20;
  options.lengths = {64, 1 << 20};
  const auto figures = bench_attention(options);
  ASSERT_EQ(figures.size(), 4u);
  EXPECT_EQ(figures[1].left_out, "");
  EXPECT_THAT(figures[3].left_out, HasSubstr("of memory, 1.00 MiB are available"));
  const std::string table = attention_bench_table(figures), grid = crossover_table(figures);
  EXPECT_THAT(table, HasSubstr("- would take about"));
  EXPECT_THAT(grid, HasSubstr("left out\n  softmax     T = 1,048,576: would take about"));
  const auto json = attention_bench_json(options, figures);
  EXPECT_TRUE(json["figures"][1]["left_out"].is_null());
  EXPECT_EQ(json["figures"][3]["left_out"], figures[3].left_out);
}

}  // namespace
}  // namespace polysketch
