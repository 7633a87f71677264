// SPDX-License-Identifier: Apache-2.0
#include "bench/attention_bench.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include "device/allocation_meter.hpp"
#include "device/device.hpp"
#include "reporting/number_text.hpp"
#include "support/median.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

constexpr int64_t shortest_trial = 512;
// seconds: shorter calls are repeated, or the clock and waking threads would be measured
constexpr double least_timed = 0.02;

struct Inputs {
  at::Tensor q, k, v, gradient;  // [B, H, T, D]
};

CallTime summary(const std::vector<double>& seconds) {
  const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
  return {median(seconds), *least, *most};
}

/// One mechanism, its tensors and what is known of it so far.
class Contestant {
 public:
  Contestant(const AttentionVariant& variant, const AttentionBenchOptions& options)
      : name(variant.name),
        attention_(make_attention(variant.config, options.shape,
                                  at::TensorOptions().device(options.device),
                                  {.seed = options.seed, .layer = 0})),
        device_(options.device) {
    attention_->at_step(0);
  }

  void forward(const Inputs& inputs) {
    const at::NoGradGuard no_grad;
    attention_->forward(inputs.q, inputs.k, inputs.v);
  }
  void forward_backward(const Inputs& inputs) {
    const at::AutoGradMode with_gradients(true);
    const auto leaf = [](const at::Tensor& x) { return x.detach().requires_grad_(); };
    attention_->forward(leaf(inputs.q), leaf(inputs.k), leaf(inputs.v)).backward(inputs.gradient);
    for (AttentionParameter& parameter : attention_->parameters())
      parameter.value.mutable_grad() = at::Tensor();
  }
  AttentionCost cost(int64_t length) const { return attention_->cost(length); }

  /// Seconds of one call, on average over `repeats` of them.
  template <class Call>
  double seconds_of(int repeats, const Call& call) {
    synchronize(device_);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) call();
    synchronize(device_);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
           repeats;
  }
  template <class Call>
  int64_t peak_of(const Call& call) {
    const AllocationMeter meter(device_);
    call();
    synchronize(device_);
    return meter.peak_bytes();
  }

  /// The longest length that ran, with time and memory of forward and backward.
  struct Known {
    int64_t length = 0;
    double seconds = 0;
    int64_t peak_bytes = 0;
  };
  std::string name;
  std::optional<Known> known;
  AttentionFigures* row = nullptr;  // of the length at hand; null if left out
  int forward_repeats = 1, both_repeats = 1;
  std::vector<double> forward_seconds, both_seconds;

 private:
  std::unique_ptr<Attention> attention_;
  at::Device device_;
};

class Bench {
 public:
  explicit Bench(const AttentionBenchOptions& options) : options_(options) {
    for (const AttentionVariant& variant : options.variants)
      contestants_.push_back(std::make_unique<Contestant>(variant, options));
  }

  std::vector<AttentionFigures> run() {
    std::vector<AttentionFigures> figures;
    for (const int64_t length : options_.lengths) {
      auto rows = measure(length);
      std::move(rows.begin(), rows.end(), std::back_inserter(figures));
    }
    return figures;
  }

 private:
  std::vector<AttentionFigures> measure(int64_t length) {
    std::vector<AttentionFigures> rows(contestants_.size());
    Inputs inputs;
    for (size_t i = 0; i < rows.size(); ++i) {
      Contestant& contestant = *contestants_[i];
      rows[i].kind = contestant.name;
      rows[i].length = length;
      rows[i].tokens = options_.batch * length;
      say(contestant, length);
      rows[i].left_out = warm_up(contestant, length, inputs, rows[i]);
      contestant.row = rows[i].left_out.empty() ? &rows[i] : nullptr;
      done_ += rows[i].left_out.empty() ? 1 : 1 + options_.rounds;
    }
    for (int round = 0; round < options_.rounds; ++round) {
      for (const auto& contestant : contestants_) {
        if (contestant->row == nullptr) continue;
        say(*contestant, length);
        contestant->forward_seconds.push_back(contestant->seconds_of(
            contestant->forward_repeats, [&] { contestant->forward(inputs); }));
        contestant->both_seconds.push_back(contestant->seconds_of(
            contestant->both_repeats, [&] { contestant->forward_backward(inputs); }));
        ++done_;
      }
    }
    for (const auto& contestant : contestants_) {
      if (contestant->row == nullptr) continue;
      contestant->row->forward = summary(std::exchange(contestant->forward_seconds, {}));
      contestant->row->both = summary(std::exchange(contestant->both_seconds, {}));
      contestant->known->seconds = contestant->row->both.median;
    }
    return rows;
  }

  /// First calls at this length: FLOPs, memory, and how often to repeat. Returns why the length has
  /// to be left out, or an empty text.
  std::string warm_up(Contestant& contestant, int64_t length, Inputs& inputs,
                      AttentionFigures& row) {
    if (options_.limit_seconds > 0) {
      for (const int64_t trial : trials(contestant, length)) {
        if (foretold_seconds(contestant, trial) > options_.limit_seconds) break;
        Inputs shorter;
        AttentionFigures unused;
        if (!try_out(contestant, trial, shorter, unused).empty()) break;
      }
      if (const double seconds = foretold_seconds(contestant, length);
          seconds > options_.limit_seconds)
        return fmt::format("would take about {} s, the limit is {} s", short_number(seconds),
                           short_number(options_.limit_seconds));
    }
    std::string left_out = try_out(contestant, length, inputs, row);
    if (left_out.empty() && options_.limit_seconds > 0 &&
        contestant.known->seconds > options_.limit_seconds)
      left_out =
          fmt::format("takes {} s, the limit is {} s", short_number(contestant.known->seconds),
                      short_number(options_.limit_seconds));
    return left_out;
  }

  /// Lengths below this one whose time tells whether it is worth starting: half, a quarter and so
  /// on, shortest first.
  static std::vector<int64_t> trials(const Contestant& contestant, int64_t length) {
    std::vector<int64_t> shorter;
    const int64_t known = contestant.known ? contestant.known->length : 0;
    for (int64_t trial = length / 2; trial >= shortest_trial && trial > known; trial /= 2)
      shorter.insert(shorter.begin(), trial);
    return shorter;
  }

  std::string try_out(Contestant& contestant, int64_t length, Inputs& inputs,
                      AttentionFigures& row) {
    const int64_t available =
        options_.memory_limit > 0 ? options_.memory_limit : available_memory_bytes(options_.device);
    const int64_t needed =
        foretold_bytes(contestant, length) + (inputs.q.defined() ? 0 : 4 * bytes_of_one(length));
    if (needed > available)
      return fmt::format("would take about {} of memory, {} are available", format_bytes(needed),
                         format_bytes(available));
    try {
      if (!inputs.q.defined()) inputs = draw(length);
      const auto forward = [&] { contestant.forward(inputs); };
      const auto both = [&] { contestant.forward_backward(inputs); };
      // The first call of a kind also loads code and makes what it keeps: what a call takes, the
      // second one tells.
      double seconds = contestant.seconds_of(1, both);
      row.peak_bytes = contestant.peak_of([&] { seconds = contestant.seconds_of(1, both); });
      contestant.known = {length, seconds, row.peak_bytes};
      contestant.both_repeats = repeats(seconds);
      row.forward_peak_bytes =
          contestant.peak_of([&] { seconds = contestant.seconds_of(1, forward); });
      contestant.forward_repeats = repeats(seconds);
    } catch (const c10::OutOfMemoryError&) {
      return "the device has not enough memory";
    }
    const AttentionCost cost = contestant.cost(length);
    const auto b = static_cast<double>(options_.batch);
    row.forward_flops = {b * cost.forward.full, b * cost.forward.causal};
    row.flops = {b * (cost.forward.full + cost.backward.full),
                 b * (cost.forward.causal + cost.backward.causal)};
    return {};
  }

  static int repeats(double seconds) {
    return static_cast<int>(std::clamp(std::ceil(least_timed / seconds), 1.0, 1000.0));
  }

  /// From the longest length that ran, in proportion to the work; 0 if none did.
  static double foretold_seconds(const Contestant& contestant, int64_t length) {
    if (!contestant.known) return 0;
    const auto work = [&](int64_t t) {
      const AttentionCost cost = contestant.cost(t);
      return cost.forward.causal + cost.backward.causal;
    };
    return contestant.known->seconds * work(length) / work(contestant.known->length);
  }

  /// What is kept for backward and as much again for its temporaries, or what the last length took,
  /// in proportion (docs/method.md §3: no kind takes more than linear memory).
  int64_t foretold_bytes(const Contestant& contestant, int64_t length) const {
    const int64_t kept = options_.batch * contestant.cost(length).saved_bytes(
                                              static_cast<int64_t>(at::elementSize(options_.type)));
    if (!contestant.known) return 2 * kept;
    const double grown = static_cast<double>(contestant.known->peak_bytes) *
                         static_cast<double>(length) /
                         static_cast<double>(contestant.known->length);
    return std::max(kept, static_cast<int64_t>(grown));
  }

  int64_t bytes_of_one(int64_t length) const {
    return options_.batch * options_.shape.heads * length * options_.shape.head_width *
           static_cast<int64_t>(at::elementSize(options_.type));
  }

  Inputs draw(int64_t length) const {
    at::Generator generator = at::detail::createCPUGenerator(options_.seed);
    const auto one = [&] {
      const at::Tensor x =
          at::randn({options_.batch, options_.shape.heads, length, options_.shape.head_width},
                    generator, at::kFloat);
      return x.to(at::TensorOptions().device(options_.device).dtype(options_.type));
    };
    return {one(), one(), one(), one()};
  }

  void say(const Contestant& contestant, int64_t length) const {
    if (options_.progress)
      options_.progress(done_, fmt::format("T = {}, {}", group_digits(length), contestant.name));
  }

  const AttentionBenchOptions& options_;
  std::vector<std::unique_ptr<Contestant>> contestants_;
  int64_t done_ = 0;
};

}  // namespace

int64_t progress_steps(const AttentionBenchOptions& options) {
  return static_cast<int64_t>(options.lengths.size() * options.variants.size()) *
         (options.rounds + 1);
}

std::vector<AttentionFigures> bench_attention(const AttentionBenchOptions& options) {
  return Bench(options).run();
}

}  // namespace polysketch
