// SPDX-License-Identifier: Apache-2.0
#include "bench/attention_report.hpp"

#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <cmath>

#include "attention/softmax.hpp"
#include "device/device.hpp"
#include "kernels/cpu/instruction_set.hpp"
#include "reporting/number_text.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

using Figures = std::vector<AttentionFigures>;

// What was measured of a kind at a length, or nothing.
const AttentionFigures* find(const Figures& figures, const std::string& kind, int64_t length) {
  const auto found = std::find_if(figures.begin(), figures.end(), [&](const AttentionFigures& f) {
    return f.kind == kind && f.length == length && f.left_out.empty();
  });
  return found == figures.end() ? nullptr : &*found;
}

std::vector<std::string> kinds_of(const Figures& figures) {
  std::vector<std::string> kinds;
  for (const AttentionFigures& f : figures) {
    if (std::find(kinds.begin(), kinds.end(), f.kind) == kinds.end()) kinds.push_back(f.kind);
  }
  return kinds;
}

std::vector<int64_t> lengths_of(const Figures& figures) {
  std::vector<int64_t> lengths;
  for (const AttentionFigures& f : figures) {
    if (lengths.empty() || lengths.back() != f.length) lengths.push_back(f.length);
  }
  return lengths;
}

size_t longest_name(const Figures& figures) {
  size_t longest = 0;
  for (const AttentionFigures& f : figures) longest = std::max(longest, f.kind.size());
  return longest;
}

// The choice hangs on device, type and width; q itself may be too large to make one more.
std::string backend_of(const AttentionBenchOptions& options) {
  const int64_t length = std::min<int64_t>(options.lengths.front(), 1024);
  return softmax_backend(at::empty({1, 1, length, options.shape.head_width},
                                   at::TensorOptions().device(options.device).dtype(options.type)));
}

const char* type_name(at::ScalarType type) { return type == at::kBFloat16 ? "bf16" : "fp32"; }

// short_number spends its digits before the point; milliseconds of a tiny call have none there.
std::string three_digits(double value) {
  return value < 1 ? fmt::format("{:.3g}", value) : short_number(value);
}

std::string crossover_text(const Crossover& crossover) {
  switch (crossover.found) {
    case Crossover::Found::between:
      return fmt::format("T = {}", group_digits(std::llround(crossover.length)));
    case Crossover::Found::at_the_shortest:
      return fmt::format("faster from the shortest length on, T = {}",
                         group_digits(std::llround(crossover.length)));
    case Crossover::Found::not_reached:
      return fmt::format("not reached up to T = {}", group_digits(crossover.longest));
    case Crossover::Found::unknown:
      return "no length at which both were measured";
  }
  throw InternalError("a crossover without a text");
}

}  // namespace

std::vector<Crossover> find_crossovers(const Figures& figures) {
  std::vector<Crossover> crossovers;
  const std::vector<std::string> kinds = kinds_of(figures);
  if (std::find(kinds.begin(), kinds.end(), "softmax") == kinds.end()) return crossovers;
  for (const std::string& kind : kinds) {
    if (kind == "softmax") continue;
    Crossover& crossover = crossovers.emplace_back();
    crossover.kind = kind;
    double last_length = 0, last_lead = 0;  // lead: how much longer softmax takes, as a logarithm
    for (const int64_t t : lengths_of(figures)) {
      const AttentionFigures *own = find(figures, kind, t), *softmax = find(figures, "softmax", t);
      if (own == nullptr || softmax == nullptr) continue;
      const auto length = static_cast<double>(t);
      const double lead = std::log(softmax->both.median / own->both.median);
      if (lead <= 0) {
        crossover.found = Crossover::Found::not_reached;
      } else if (crossover.found == Crossover::Found::unknown) {
        crossover.found = Crossover::Found::at_the_shortest;
        crossover.length = length;
      } else if (crossover.found == Crossover::Found::not_reached) {
        crossover.found = Crossover::Found::between;
        crossover.length =
            last_length * std::pow(length / last_length, last_lead / (last_lead - lead));
      }
      crossover.longest = t;
      last_length = length;
      last_lead = lead;
    }
  }
  return crossovers;
}

std::string attention_bench_heading(const AttentionBenchOptions& options) {
  const std::string on_cpu =
      options.device.is_cpu()
          ? fmt::format(", kernels for {}, LibTorch's for {}", name(kernels::instruction_set()),
                        at::get_cpu_capability())
          : "";
  return fmt::format(
      "{}{}\n{}, {} x {} heads of width {}; softmax: LibTorch {} ({}); medians of {} rounds\n",
      device_name(options.device), on_cpu, type_name(options.type), options.batch,
      options.shape.heads, options.shape.head_width, TORCH_VERSION, backend_of(options),
      options.rounds);
}

nlohmann::ordered_json attention_bench_json(const AttentionBenchOptions& options,
                                            const Figures& figures) {
  nlohmann::ordered_json json{{"device", device_name(options.device)},
                              {"kernel_instructions", nullptr},
                              {"torch_instructions", nullptr},
                              {"softmax_backend", backend_of(options)},
                              {"precision", type_name(options.type)},
                              {"batch", options.batch},
                              {"heads", options.shape.heads},
                              {"head_width", options.shape.head_width},
                              {"rounds", options.rounds},
                              {"figures", nlohmann::ordered_json::array()}};
  if (options.device.is_cpu()) {
    json["kernel_instructions"] = name(kernels::instruction_set());
    json["torch_instructions"] = at::get_cpu_capability();
  }
  for (const AttentionFigures& f : figures) {
    nlohmann::ordered_json row{{"kind", f.kind}, {"length", f.length}, {"left_out", nullptr}};
    if (!f.left_out.empty()) {
      row["left_out"] = f.left_out;
      json["figures"].push_back(row);
      continue;
    }
    row.update({{"forward_seconds", f.forward.median},
                {"forward_seconds_min", f.forward.least},
                {"forward_seconds_max", f.forward.most},
                {"seconds", f.both.median},
                {"seconds_min", f.both.least},
                {"seconds_max", f.both.most},
                {"tokens_per_second", f.tokens_per_second()},
                {"microseconds_per_token", f.microseconds_per_token()},
                {"forward_peak_bytes", f.forward_peak_bytes},
                {"peak_bytes", f.peak_bytes},
                {"forward_flops_causal", f.forward_flops.causal},
                {"forward_flops_full", f.forward_flops.full},
                {"flops_causal", f.flops.causal},
                {"flops_full", f.flops.full},
                {"flops_per_second", f.flops_per_second()},
                {"forward_speed_over_softmax", nullptr},
                {"speed_over_softmax", nullptr}});
    if (const AttentionFigures* softmax = find(figures, "softmax", f.length)) {
      row["forward_speed_over_softmax"] = softmax->forward.median / f.forward.median;
      row["speed_over_softmax"] = softmax->both.median / f.both.median;
    }
    json["figures"].push_back(row);
  }
  return json;
}

nlohmann::ordered_json crossover_json(const AttentionBenchOptions& options,
                                      const Figures& figures) {
  nlohmann::ordered_json json = attention_bench_json(options, figures);
  json["crossovers"] = nlohmann::ordered_json::array();
  for (const Crossover& crossover : find_crossovers(figures)) {
    nlohmann::ordered_json row{
        {"kind", crossover.kind}, {"length", nullptr}, {"text", crossover_text(crossover)}};
    if (crossover.found == Crossover::Found::between ||
        crossover.found == Crossover::Found::at_the_shortest)
      row["length"] = crossover.length;
    json["crossovers"].push_back(row);
  }
  return json;
}

std::string attention_bench_table(const Figures& figures) {
  const size_t width = longest_name(figures);
  constexpr const char* format =
      "{:>10}  {:<{}} {:>11} {:>10} {:>10} {:>10} {:>9} {:>13} {:>10} {:>9} {:>9} {:>10} {:>10}\n";
  std::string text =
      fmt::format(format, "T", "kind", width, "forward ms", "both ms", "least", "most", "tokens/s",
                  "forward peak", "peak", "GFLOP", "GFLOP/s", "x softmax", "forward");
  for (const AttentionFigures& f : figures) {
    const std::string length = group_digits(f.length);
    if (!f.left_out.empty()) {
      text += fmt::format("{:>10}  {:<{}} {:>11} {}\n", length, f.kind, width, "-", f.left_out);
      continue;
    }
    const AttentionFigures* softmax = find(figures, "softmax", f.length);
    const auto ratio = [&](CallTime AttentionFigures::*call) {
      return softmax == nullptr ? "-" : three_digits((softmax->*call).median / (f.*call).median);
    };
    text +=
        fmt::format(format, length, f.kind, width, three_digits(1e3 * f.forward.median),
                    three_digits(1e3 * f.both.median), three_digits(1e3 * f.both.least),
                    three_digits(1e3 * f.both.most), short_rate(f.tokens_per_second()),
                    format_bytes(f.forward_peak_bytes), format_bytes(f.peak_bytes),
                    three_digits(f.flops.causal / 1e9), three_digits(f.flops_per_second() / 1e9),
                    ratio(&AttentionFigures::both), ratio(&AttentionFigures::forward));
  }
  return text +
         "both: forward and backward. GFLOP: of both, counting the pairs that exist. x softmax: "
         "speed relative to softmax (forward and backward; forward)\n";
}

std::string crossover_table(const Figures& figures) {
  const std::vector<std::string> kinds = kinds_of(figures);
  std::string text = "microseconds per token, forward and backward\n" + fmt::format("{:>9}", "T");
  for (const std::string& kind : kinds)
    text += fmt::format("  {:>{}}", kind, std::max<size_t>(8, kind.size()));
  text += "\n";
  for (const int64_t length : lengths_of(figures)) {
    text += fmt::format("{:>9}", group_digits(length));
    for (const std::string& kind : kinds) {
      const AttentionFigures* f = find(figures, kind, length);
      text +=
          fmt::format("  {:>{}}", f == nullptr ? "-" : three_digits(f->microseconds_per_token()),
                      std::max<size_t>(8, kind.size()));
    }
    text += "\n";
  }
  const std::vector<Crossover> crossovers = find_crossovers(figures);
  if (!crossovers.empty()) text += "\nfaster than softmax from\n";
  for (const Crossover& crossover : crossovers)
    text += fmt::format("  {:<{}}  {}\n", crossover.kind, longest_name(figures),
                        crossover_text(crossover));
  std::string missing;
  for (const AttentionFigures& f : figures) {
    if (!f.left_out.empty())
      missing += fmt::format("  {:<{}}  T = {}: {}\n", f.kind, longest_name(figures),
                             group_digits(f.length), f.left_out);
  }
  return missing.empty() ? text : text + "\nleft out\n" + missing;
}

Plot crossover_plot(const Figures& figures) {
  constexpr int colors = 8;
  constexpr size_t most_ticks = 10;
  Plot plot;
  plot.title = "Attention: time per token, forward and backward";
  plot.x_label = "context length T";
  plot.y_label = "microseconds per token (logarithmic)";
  plot.logarithmic_x = plot.logarithmic_y = true;
  const std::vector<int64_t> lengths = lengths_of(figures);
  const size_t stride = (lengths.size() + most_ticks - 1) / most_ticks;
  for (size_t i = 0; i < lengths.size(); i += stride) {
    const int64_t t = lengths[i];
    plot.x_ticks.emplace_back(static_cast<double>(t), t >= 1024 && t % 1024 == 0
                                                          ? fmt::format("{}Ki", t / 1024)
                                                          : group_digits(t));
  }
  for (const std::string& kind : kinds_of(figures)) {
    const auto index = static_cast<int>(plot.series.size());
    // Colours come round again after eight; then the lines are dashed.
    PlotSeries series{
        kind, index % colors, index / colors % 2 == 0 ? PlotStyle::marked : PlotStyle::markers, {}};
    for (const AttentionFigures& f : figures) {
      if (f.kind == kind && f.left_out.empty())
        series.points.emplace_back(static_cast<double>(f.length), f.microseconds_per_token());
    }
    plot.series.push_back(std::move(series));
  }
  return plot;
}

}  // namespace polysketch
