// SPDX-License-Identifier: Apache-2.0
// How near the CPU kernels come to the speed of memory, at the shapes of GPT-2 small with T = 1024.
//
// Each line gives best_GB/s, the bytes that a kernel must read and write divided by the shortest of
// its times, and of_memcpy, the same as a share of what memcpy at its best reaches on this machine
// with as many bytes. POLYSKETCH_BENCH_THREADS sets the threads (default: all cores),
// POLYSKETCH_ISA the instruction set.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/instruction_set.hpp"
#include "kernels/cpu/row_kernels.hpp"

namespace polysketch::kernels {
namespace {

constexpr int64_t kRows = 1024, kWidth = 768, kHidden = 2048, kHeads = 12, kHeadWidth = 64,
                  kVocabulary = 32'000, kParameters = 16 << 20;

int thread_count() {
  const char* value = std::getenv("POLYSKETCH_BENCH_THREADS");
  const int wanted =
      value == nullptr ? static_cast<int>(std::thread::hardware_concurrency()) : std::atoi(value);
  return wanted < 1 ? 1 : wanted;
}

/// Threads that each take their share of a range and wait for the next one.
class Team {
 public:
  Team() : start_(thread_count()), end_(thread_count()) {
    for (int i = 1; i < thread_count(); ++i) threads_.emplace_back([this, i] { serve(i); });
  }
  ~Team() {
    stop_ = true;
    start_.arrive_and_wait();
    for (auto& thread : threads_) thread.join();
  }
  void run(int64_t count, const std::function<void(int, int64_t, int64_t)>& work) {
    count_ = count;
    work_ = &work;
    start_.arrive_and_wait();
    share(0);
    end_.arrive_and_wait();
  }

 private:
  void share(int i) { (*work_)(i, count_ * i / thread_count(), count_ * (i + 1) / thread_count()); }
  void serve(int i) {
    while (true) {
      start_.arrive_and_wait();
      if (stop_) return;
      share(i);
      end_.arrive_and_wait();
    }
  }

  std::barrier<> start_, end_;
  std::vector<std::thread> threads_;
  const std::function<void(int, int64_t, int64_t)>* work_ = nullptr;
  int64_t count_ = 0;
  bool stop_ = false;
};

Team& team() {
  static Team one;
  return one;
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Bytes read and written a second by a memcpy that moves `bytes` in all (half read, half written),
/// best of several.
double memcpy_rate(int64_t bytes) {
  static std::map<int64_t, double> known;
  if (const auto found = known.find(bytes); found != known.end()) return found->second;
  std::vector<char> from(static_cast<size_t>(bytes / 2), 1), to(from.size());
  double best = 0;
  for (int repeat = 0; repeat < 30; ++repeat) {
    const double begin = seconds();
    team().run(bytes / 2, [&](int, int64_t first, int64_t last) {
      std::memcpy(to.data() + first, from.data() + first, static_cast<size_t>(last - first));
    });
    best = std::max(best, static_cast<double>(bytes) / (seconds() - begin));
  }
  return known[bytes] = best;
}

/// The bench loop: `work(thread, begin, end)` over [0, count), moving `bytes` each time.
void measure(benchmark::State& state, int64_t count, int64_t bytes,
             const std::function<void(int, int64_t, int64_t)>& work) {
  const double copy = memcpy_rate(bytes);
  double least = 1e30;
  for (auto _ : state) {
    const double begin = seconds();
    team().run(count, work);
    least = std::min(least, seconds() - begin);
    benchmark::ClobberMemory();
  }
  state.counters["best_GB/s"] = static_cast<double>(bytes) / least / 1e9;
  state.counters["of_memcpy"] = static_cast<double>(bytes) / least / copy;
}

/// Smooth values in [-spread, spread].
template <class T>
std::vector<T> values(int64_t count, float spread = 2) {
  std::vector<T> result(static_cast<size_t>(count));
  uint32_t state = 12345;
  for (T& x : result) {
    state = state * 1664525u + 1013904223u;
    const float value = (static_cast<float>(state >> 8) * 0x1p-23f - 1) * spread;
    if constexpr (std::is_same_v<T, bf16>) {
      x = to_bf16(value);
    } else {
      x = value;
    }
  }
  return result;
}

template <class S, class A>
void layer_norm_forward_bench(benchmark::State& state) {
  auto x = values<S>(kRows * kWidth), sum = x;
  auto delta = values<A>(kRows * kWidth), y = delta;
  auto gain = values<float>(kWidth), bias = values<float>(kWidth), mean = values<float>(kRows),
       rstd = mean;
  const LayerNormForward<S, A> a{.x = x.data(),
                                 .delta = delta.data(),
                                 .sum = sum.data(),
                                 .gain = gain.data(),
                                 .bias = bias.data(),
                                 .y = y.data(),
                                 .mean = mean.data(),
                                 .rstd = rstd.data(),
                                 .width = kWidth};
  measure(state, kRows, kRows * kWidth * static_cast<int64_t>(2 * sizeof(S) + 2 * sizeof(A)),
          [&](int, int64_t begin, int64_t end) { layer_norm_forward(a, begin, end); });
}

template <class S, class A>
void layer_norm_backward_bench(benchmark::State& state) {
  auto x = values<S>(kRows * kWidth), dresidual = x, dx = x;
  auto dy = values<A>(kRows * kWidth);
  auto gain = values<float>(kWidth), mean = values<float>(kRows), rstd = mean;
  std::vector<std::vector<float>> sums(static_cast<size_t>(2 * thread_count()),
                                       std::vector<float>(kWidth));
  measure(state, kRows, kRows * kWidth * static_cast<int64_t>(3 * sizeof(S) + sizeof(A)),
          [&](int thread, int64_t begin, int64_t end) {
            const auto at = static_cast<size_t>(2 * thread);
            const LayerNormBackward<S, A> a{.dy = dy.data(),
                                            .x = x.data(),
                                            .gain = gain.data(),
                                            .mean = mean.data(),
                                            .rstd = rstd.data(),
                                            .dresidual = dresidual.data(),
                                            .dx = dx.data(),
                                            .dgain = sums[at].data(),
                                            .dbias = sums[at + 1].data(),
                                            .width = kWidth};
            layer_norm_backward(a, begin, end);
          });
}

template <class A>
void glu_forward_bench(benchmark::State& state) {
  auto in = values<A>(kRows * 2 * kHidden), out = values<A>(kRows * kHidden);
  const GluForward<A> a{.in = in.data(), .out = out.data(), .hidden = kHidden};
  measure(state, kRows, kRows * kHidden * static_cast<int64_t>(3 * sizeof(A)),
          [&](int, int64_t begin, int64_t end) { glu_forward(a, begin, end); });
}

template <class A>
void glu_backward_bench(benchmark::State& state) {
  auto in = values<A>(kRows * 2 * kHidden), din = in, dout = values<A>(kRows * kHidden), out = dout;
  const GluBackward<A> a{.in = in.data(),
                         .dout = dout.data(),
                         .din = din.data(),
                         .out = out.data(),
                         .hidden = kHidden};
  measure(state, kRows, kRows * kHidden * static_cast<int64_t>(6 * sizeof(A)),
          [&](int, int64_t begin, int64_t end) { glu_backward(a, begin, end); });
}

template <class A, bool forward>
void rotary_bench(benchmark::State& state) {
  auto qkv = values<A>(kRows * 3 * kWidth), q = values<A>(kRows * kWidth), k = q, v = q;
  auto cosine = values<float>(kRows * kHeadWidth / 2), sine = cosine;
  const int64_t bytes = kRows * kWidth * static_cast<int64_t>(6 * sizeof(A));
  measure(state, kRows, bytes, [&](int, int64_t begin, int64_t end) {
    if constexpr (forward) {
      rotary_forward(RotaryForward<A>{.qkv = qkv.data(),
                                      .q = q.data(),
                                      .k = k.data(),
                                      .v = v.data(),
                                      .cosine = cosine.data(),
                                      .sine = sine.data(),
                                      .length = kRows,
                                      .heads = kHeads,
                                      .head_width = kHeadWidth},
                     begin, end);
    } else {
      rotary_backward(RotaryBackward<A>{.dq = q.data(),
                                        .dk = k.data(),
                                        .dv = v.data(),
                                        .dqkv = qkv.data(),
                                        .cosine = cosine.data(),
                                        .sine = sine.data(),
                                        .length = kRows,
                                        .heads = kHeads,
                                        .head_width = kHeadWidth},
                      begin, end);
    }
  });
}

template <class A, bool gradient>
void cross_entropy_bench(benchmark::State& state) {
  auto logits = values<A>(kRows * kVocabulary, 8);
  const auto bias = values<float>(kVocabulary, 0.1f);
  std::vector<float> loss(kRows);
  std::vector<std::vector<float>> dbias(static_cast<size_t>(thread_count()),
                                        std::vector<float>(kVocabulary));
  std::vector<int64_t> targets(kRows);
  for (size_t r = 0; r < targets.size(); ++r)
    targets[r] = static_cast<int64_t>(r * 31 % kVocabulary);
  const int64_t bytes = kRows * kVocabulary * static_cast<int64_t>(sizeof(A)) * (gradient ? 2 : 1);
  measure(state, kRows, bytes, [&](int thread, int64_t begin, int64_t end) {
    const CrossEntropy<A> a{.logits = logits.data(),
                            .row_stride = kVocabulary,
                            .bias = bias.data(),
                            .targets = targets.data(),
                            .loss = loss.data(),
                            .dbias = dbias[static_cast<size_t>(thread)].data(),
                            .scale = 1,
                            .vocabulary = kVocabulary};
    if constexpr (gradient) {
      cross_entropy(a, begin, end);
    } else {
      cross_entropy_loss(a, begin, end);
    }
  });
}

template <bool copy>
void adamw_bench(benchmark::State& state) {
  auto p = values<float>(kParameters), m = values<float>(kParameters, 1e-3f),
       v = std::vector<float>(kParameters, 1e-4f), g = values<float>(kParameters, 1e-3f);
  std::vector<bf16> rounded(copy ? kParameters : 0);
  const AdamWStep a{.parameter = p.data(),
                    .first_moment = m.data(),
                    .second_moment = v.data(),
                    .gradient = g.data(),
                    .copy = copy ? rounded.data() : nullptr,
                    .learning_rate = 1e-4,
                    .beta1 = 0.95,
                    .beta2 = 0.98,
                    .epsilon = 1e-8,
                    .weight_decay = 0.1,
                    .correction1 = 0.5,
                    .correction2 = 0.5,
                    .zero_gradient = copy};
  measure(state, kParameters, kParameters * (copy ? 34 : 28),
          [&](int, int64_t begin, int64_t end) { adamw_step(a, begin, end); });
}

void sum_of_squares_bench(benchmark::State& state) {
  const auto x = values<float>(kParameters);
  std::vector<double> partial(static_cast<size_t>(kParameters / kSquareBlock));
  measure(state, kParameters / kSquareBlock, kParameters * 4, [&](int, int64_t begin, int64_t end) {
    sum_of_squares(x.data(), kParameters, partial.data(), begin, end);
  });
}

void accumulate_bench(benchmark::State& state) {
  const auto x = values<bf16>(kParameters);
  auto sum = values<float>(kParameters);
  measure(state, kParameters, kParameters * 10,
          [&](int, int64_t begin, int64_t end) { accumulate(x.data(), sum.data(), begin, end); });
}

void embedding_backward_bench(benchmark::State& state) {
  std::vector<int64_t> ids(kRows);
  for (size_t r = 0; r < ids.size(); ++r) ids[r] = static_cast<int64_t>(r * 9973 % kVocabulary);
  const auto dx = values<float>(kRows * kWidth);
  std::vector<float> table(static_cast<size_t>(kVocabulary * kWidth));
  const EmbeddingBackward<float> a{
      .ids = ids.data(), .dx = dx.data(), .dtable = table.data(), .rows = kRows, .width = kWidth};
  measure(state, kWidth, kRows * kWidth * 12,
          [&](int, int64_t begin, int64_t end) { embedding_backward(a, begin, end); });
}

void memcpy_bench(benchmark::State& state) {
  const int64_t bytes = state.range(0);
  std::vector<char> from(static_cast<size_t>(bytes / 2), 1), to(from.size());
  measure(state, bytes / 2, bytes, [&](int, int64_t begin, int64_t end) {
    std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
  });
}

BENCHMARK(memcpy_bench)->Arg(8 << 20)->Arg(64 << 20)->Arg(512 << 20)->UseRealTime();
BENCHMARK(layer_norm_forward_bench<float, float>)->UseRealTime();
BENCHMARK(layer_norm_forward_bench<float, bf16>)->UseRealTime();
BENCHMARK(layer_norm_forward_bench<bf16, bf16>)->UseRealTime();
BENCHMARK(layer_norm_backward_bench<float, float>)->UseRealTime();
BENCHMARK(layer_norm_backward_bench<float, bf16>)->UseRealTime();
BENCHMARK(layer_norm_backward_bench<bf16, bf16>)->UseRealTime();
BENCHMARK(glu_forward_bench<float>)->UseRealTime();
BENCHMARK(glu_forward_bench<bf16>)->UseRealTime();
BENCHMARK(glu_backward_bench<float>)->UseRealTime();
BENCHMARK(glu_backward_bench<bf16>)->UseRealTime();
BENCHMARK(rotary_bench<float, true>)->UseRealTime();
BENCHMARK(rotary_bench<bf16, true>)->UseRealTime();
BENCHMARK(rotary_bench<float, false>)->UseRealTime();
BENCHMARK(rotary_bench<bf16, false>)->UseRealTime();
BENCHMARK(cross_entropy_bench<float, true>)->UseRealTime();
BENCHMARK(cross_entropy_bench<bf16, true>)->UseRealTime();
BENCHMARK(cross_entropy_bench<bf16, false>)->UseRealTime();
BENCHMARK(embedding_backward_bench)->UseRealTime();
BENCHMARK(adamw_bench<false>)->UseRealTime();
BENCHMARK(adamw_bench<true>)->UseRealTime();
BENCHMARK(sum_of_squares_bench)->UseRealTime();
BENCHMARK(accumulate_bench)->UseRealTime();

}  // namespace
}  // namespace polysketch::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 64;
  std::printf(
      "%d threads, %s\n", polysketch::kernels::thread_count(),
      std::string(polysketch::kernels::name(polysketch::kernels::instruction_set())).c_str());
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
