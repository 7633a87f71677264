// SPDX-License-Identifier: Apache-2.0
#include "bench/decode_bench.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "bench/attention_report.hpp"
#include "device/device.hpp"
#include "reporting/number_text.hpp"
#include "support/median.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPiece = 4096;    // tokens of one prefill
constexpr int64_t kDrawn = 64;      // tokens whose vectors exist; they are used in turn
constexpr int64_t kWarmUp = 16;     // tokens before the first that is timed
constexpr int64_t kFewTokens = 64;  // of a measurement where every token looks at all before it

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Token {
  at::Tensor q, k, v;  // [B, H, n, D]
};

/// One mechanism with the state of one text.
class Text {
 public:
  Text(const AttentionVariant& variant, const DecodeBenchOptions& options, DecodeFigures& figures)
      : figures_(figures),
        device_(options.common.device),
        attention_(make_attention(variant.config, options.common.shape,
                                  at::TensorOptions().device(options.common.device),
                                  {.seed = options.common.seed, .layer = 0})) {
    const Recurrence recurrence = attention_->recurrence();
    if (recurrence == Recurrence::none) {
      figures_.left_out = "has no recurrent form";
      return;
    }
    figures_.tokens = options.tokens > 0                  ? options.tokens
                      : recurrence == Recurrence::growing ? kFewTokens
                                                          : variant.config.block;
    state_ = attention_->initial_state();
  }

  /// The state at the position. False if that takes longer than the limit.
  bool build(const Token& piece, const std::vector<Token>& tokens, double limit) {
    const auto start = Clock::now();
    const int64_t singles = std::min(kWarmUp, figures_.position);
    for (int64_t done = 0; done < figures_.position - singles;) {
      const int64_t n = std::min(kPiece, figures_.position - singles - done);
      const auto part = [&](const at::Tensor& x) { return x.narrow(2, 0, n); };
      (void)attention_->prefill(*state_, part(piece.q), part(piece.k), part(piece.v));
      done += n;
      synchronize(device_);
      if (limit > 0 && seconds_since(start) > limit) {
        figures_.left_out = fmt::format("the state after {} tokens took more than {} s",
                                        group_digits(done), short_number(limit));
        return false;
      }
    }
    const double seconds =
        time(tokens, std::max<int64_t>(1, singles)) * static_cast<double>(figures_.tokens);
    if (limit > 0 && seconds > limit)
      figures_.left_out = fmt::format("{} tokens would take about {} s, the limit is {} s",
                                      figures_.tokens, short_number(seconds), short_number(limit));
    figures_.state_bytes = state_->bytes();
    return figures_.left_out.empty();
  }

  void measure(const std::vector<Token>& tokens) {
    seconds_.push_back(time(tokens, figures_.tokens));
  }

  void finish() {
    if (!figures_.left_out.empty()) return;
    const auto [least, most] = std::minmax_element(seconds_.begin(), seconds_.end());
    figures_.token = {median(seconds_), *least, *most};
  }

  const DecodeFigures& figures() const { return figures_; }

 private:
  /// Seconds of one token.
  double time(const std::vector<Token>& tokens, int64_t count) {
    const auto start = Clock::now();
    for (int64_t i = 0; i < count; ++i) {
      const Token& token = tokens[static_cast<size_t>(next_++ % kDrawn)];
      (void)attention_->step(*state_, token.q, token.k, token.v);
    }
    synchronize(device_);
    return seconds_since(start) / static_cast<double>(count);
  }

  DecodeFigures& figures_;
  at::Device device_;
  std::unique_ptr<Attention> attention_;
  std::unique_ptr<AttentionState> state_;
  int64_t next_ = 0;
  std::vector<double> seconds_;
};

Token draw(const AttentionBenchOptions& options, at::Generator& generator, int64_t length) {
  const auto one = [&] {
    const at::Tensor x =
        at::randn({options.batch, options.shape.heads, length, options.shape.head_width}, generator,
                  at::kFloat);
    return x.to(at::TensorOptions().device(options.device).dtype(options.type));
  };
  return {one(), one(), one()};
}

}  // namespace

int64_t progress_steps(const DecodeBenchOptions& options) { return progress_steps(options.common); }

std::vector<DecodeFigures> bench_decode(const DecodeBenchOptions& options) {
  const at::NoGradGuard no_grad;
  const AttentionBenchOptions& common = options.common;
  at::Generator generator = at::detail::createCPUGenerator(common.seed);
  const Token piece = draw(common, generator, std::min(kPiece, common.lengths.back()));
  std::vector<Token> tokens;
  for (int64_t i = 0; i < kDrawn; ++i) tokens.push_back(draw(common, generator, 1));

  std::vector<DecodeFigures> figures(common.variants.size() * common.lengths.size());
  std::vector<std::unique_ptr<Text>> texts;
  int64_t done = 0;
  const auto say = [&](const DecodeFigures& row) {
    if (common.progress)
      common.progress(done, fmt::format("position {}, {}", group_digits(row.position), row.kind));
  };
  for (const AttentionVariant& variant : common.variants) {
    for (const int64_t position : common.lengths) {
      DecodeFigures& row = figures[texts.size()];
      row.kind = variant.name;
      row.position = position;
      say(row);
      texts.push_back(std::make_unique<Text>(variant, options, row));
      const bool ready =
          row.left_out.empty() && texts.back()->build(piece, tokens, common.limit_seconds);
      if (!ready) texts.back() = nullptr;
      done += ready ? 1 : 1 + common.rounds;
    }
  }
  for (int round = 0; round < common.rounds; ++round) {
    for (const auto& text : texts) {
      if (!text) continue;
      say(text->figures());
      text->measure(tokens);
      ++done;
    }
  }
  for (const auto& text : texts) {
    if (text) text->finish();
  }
  return figures;
}

std::string decode_bench_table(const std::vector<DecodeFigures>& figures) {
  size_t width = 4;
  for (const DecodeFigures& f : figures) width = std::max(width, f.kind.size());
  constexpr const char* format = "{:<{}} {:>12} {:>12} {:>10} {:>10} {:>10} {:>8}\n";
  std::string text = fmt::format(format, "kind", width, "position", "us a token", "least", "most",
                                 "state", "tokens");
  for (const DecodeFigures& f : figures) {
    const std::string position = group_digits(f.position);
    if (!f.left_out.empty()) {
      text += fmt::format("{:<{}} {:>12} {:>12} {}\n", f.kind, width, position, "-", f.left_out);
      continue;
    }
    const auto micro = [](double seconds) { return fmt::format("{:.4g}", 1e6 * seconds); };
    text +=
        fmt::format(format, f.kind, width, position, micro(f.token.median), micro(f.token.least),
                    micro(f.token.most), format_bytes(f.state_bytes), f.tokens);
  }
  return text + "us a token: mean over so many tokens from the position on, median of the rounds\n";
}

nlohmann::ordered_json decode_bench_json(const DecodeBenchOptions& options,
                                         const std::vector<DecodeFigures>& figures) {
  nlohmann::ordered_json json = attention_bench_json(options.common, {});
  for (const DecodeFigures& f : figures) {
    nlohmann::ordered_json row{{"kind", f.kind}, {"position", f.position}, {"left_out", nullptr}};
    if (f.left_out.empty()) {
      row.update({{"seconds_per_token", f.token.median},
                  {"seconds_per_token_min", f.token.least},
                  {"seconds_per_token_max", f.token.most},
                  {"tokens", f.tokens},
                  {"state_bytes", f.state_bytes}});
    } else {
      row["left_out"] = f.left_out;
    }
    json["figures"].push_back(std::move(row));
  }
  return json;
}

}  // namespace polysketch
