// SPDX-License-Identifier: Apache-2.0
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <ctime>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "reporting/metric_sink.hpp"
#include "reporting/number_text.hpp"
#include "reporting/progress_bar.hpp"
#include "support/log.hpp"
#include "support/median.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

/// A numeric field, nothing if the record has none. A loss that is not finite is a number here
/// ("nan"), in metrics.jsonl it is null.
std::optional<double> number(const MetricRecord& record, const char* key) {
  const auto found = record.fields.find(key);
  if (found == record.fields.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::string text(const MetricRecord& record, const char* key) {
  const auto found = record.fields.find(key);
  if (found == record.fields.end()) return {};
  return found->is_string() ? found->get<std::string>()
         : found->is_null() ? std::string()
                            : found->dump();
}

std::string join(const std::vector<std::string>& parts) {
  std::string line;
  for (const std::string& part : parts) {
    if (part.empty()) continue;
    if (!line.empty()) line += " | ";
    line += part;
  }
  return line;
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }
std::string memory(double bytes) { return fmt::format("{:.1f} GiB", bytes / (1 << 30)); }

/// Averages over the steps since the last line, so that one slow step neither hides nor stands for
/// all.
class Interval {
 public:
  void add(const MetricRecord& record) {
    const double seconds = number(record, "seconds_per_step").value_or(0);
    if (!(seconds > 0)) return;
    seconds_ += seconds;
    tokens_ += seconds * number(record, "tokens_per_second").value_or(0);
    waited_ += seconds * number(record, "data_wait_fraction").value_or(0);
    used_ += seconds * number(record, "mfu").value_or(0);
  }
  double per_second() const { return tokens_ / seconds_; }
  double data_wait() const { return waited_ / seconds_; }
  double mfu() const { return used_ / seconds_; }
  bool empty() const { return !(seconds_ > 0); }

 private:
  double seconds_ = 0, tokens_ = 0, waited_ = 0, used_ = 0;
};

/// "Wed 14:20"; with the date where a weekday could be taken for another.
std::string moment_after(double seconds) {
  constexpr double week = 6 * 24 * 3600;
  const std::time_t at = std::time(nullptr) + static_cast<std::time_t>(seconds);
  std::tm local{};
  if (::localtime_r(&at, &local) == nullptr) return {};
  return seconds < week ? fmt::format("{:%a %H:%M}", local)
                        : fmt::format("{:%Y-%m-%d %H:%M}", local);
}

/// How long the rest of a run will take, said once when a few steps have been measured.
class Forecast {
 public:
  explicit Forecast(int64_t total_steps) : total_steps_(total_steps) {}

  /// Empty but for the step after which there is something to say.
  std::string after(const MetricRecord& record) {
    const double seconds = number(record, "seconds_per_step").value_or(0);
    // the first step allocates and warms up
    if (done_ || !(seconds > 0) || !std::exchange(warm_, true)) return {};
    seconds_.push_back(seconds);
    tokens_.push_back(seconds * number(record, "tokens_per_second").value_or(0));
    if (seconds_.size() < wanted) return {};
    done_ = true;
    const int64_t left = total_steps_ - record.step;
    const double step = median(seconds_), all = step * static_cast<double>(left);
    if (all < shortest) return {};
    return fmt::format(
        "forecast: {} more steps at {} tok/s: {}, done about {}; validation and checkpoints come "
        "on "
        "top",
        group_digits(left), short_rate(median(tokens_) / step), format_duration(all),
        moment_after(all));
  }

 private:
  static constexpr size_t wanted = 5;
  static constexpr double shortest = 60;  // seconds; of less the ETA of each line says enough
  int64_t total_steps_;
  bool warm_ = false, done_ = false;
  std::vector<double> seconds_, tokens_;
};

class ConsoleSink : public MetricSink {
 public:
  explicit ConsoleSink(const ConsoleOptions& options)
      : options_(options),
        step_width_(group_digits(options.total_steps).size()),
        forecast_(options.total_steps) {
    if (options_.progress && ::isatty(STDERR_FILENO) == 1)
      bar_ = std::make_unique<ProgressBar>("training", options_.total_steps, "steps");
    if (bar_) bar_->update(options_.start_step);
  }

  void record(const MetricRecord& record) override {
    if (record.event == "step") return step(record);
    if (record.event == "validation") return log_info(validation_line(record));
    if (record.event == "diagnostics") return log_info(diagnostics_line(record));
    if (record.event == "checkpoint") return log_info(checkpoint_line(record));
    if (record.event == "stop" || record.event == "end") {
      bar_.reset();
      log_info(last_line(record));
    }
  }

 private:
  void step(const MetricRecord& record) {
    interval_.add(record);
    if (const auto seconds = number(record, "seconds_per_step"); seconds && *seconds > 0) {
      // The first step allocates and warms up, so it counts only until there is another; later the
      // average forgets.
      const double weight =
          std::max(0.05, 1.0 / static_cast<double>(std::max<int64_t>(1, timed_steps_++)));
      seconds_per_step_ += weight * (*seconds - seconds_per_step_);
    }
    const bool first = record.step == options_.start_step + 1;
    const bool last = record.step == options_.total_steps;
    if (first || last || (options_.every > 0 && record.step % options_.every == 0)) {
      log_info(step_line(record));
      interval_ = Interval();
    }
    if (const std::string line = forecast_.after(record); !line.empty()) log_info(line);
    if (bar_) bar_->update(record.step, loss_text(record));
  }

  static std::string loss_text(const MetricRecord& record) {
    const auto loss = number(record, "loss");
    return loss                             ? fmt::format("loss {:.3f}", *loss)
           : record.fields.contains("loss") ? "loss nan"
                                            : "";
  }

  std::string step_text(const MetricRecord& record) const {
    return fmt::format("{:>{}}/{}", group_digits(record.step), step_width_,
                       group_digits(options_.total_steps));
  }

  std::string step_line(const MetricRecord& record) const {
    std::vector<std::string> parts{"step " + step_text(record), loss_text(record)};
    const auto add = [&](const char* key, auto format) {
      if (const auto value = number(record, key)) parts.push_back(format(*value));
    };
    add("perplexity", [](double value) { return fmt::format("ppl {:>5}", short_number(value)); });
    add("learning_rate", [](double value) { return fmt::format("lr {:.1e}", value); });
    add("gradient_norm", [](double value) { return fmt::format("norm {:.2f}", value); });
    if (!interval_.empty()) {
      parts.push_back(fmt::format("{:>5} tok/s", short_rate(interval_.per_second())));
      if (interval_.mfu() > 0) parts.push_back("mfu " + percent(interval_.mfu()));
      parts.push_back("data " + percent(interval_.data_wait()));
    }
    add("peak_bytes", memory);
    if (options_.total_steps > record.step && seconds_per_step_ > 0) {
      parts.push_back("eta " +
                      format_duration(seconds_per_step_ *
                                      static_cast<double>(options_.total_steps - record.step)));
    }
    return join(parts);
  }

  /// Named like a step line, so that the two are read in one column.
  std::string validation_line(const MetricRecord& record) {
    const auto loss = number(record, "loss");
    std::vector<std::string> parts{"validation at " + group_digits(record.step)};
    if (loss) parts.push_back(fmt::format("loss {:.4f}", *loss));
    if (const auto value = number(record, "perplexity"))
      parts.push_back("ppl " + short_number(*value));
    if (const auto value = number(record, "bits_per_byte"))
      parts.push_back(fmt::format("{:.4f} bits/byte", *value));
    const auto tokens = number(record, "tokens_scored");
    const auto seconds = number(record, "seconds");
    if (tokens && seconds)
      parts.push_back(
          fmt::format("{} tokens in {}", short_tokens(std::llround(*tokens)), duration(*seconds)));
    if (loss && best_ && *loss < *best_)
      parts.push_back(fmt::format("best so far, was {:.4f}", *best_));
    if (loss && (!best_ || *loss < *best_)) best_ = loss;
    return join(parts);
  }

  /// The mean over the layers and, where layers can differ, the worst.
  static std::string diagnostics_line(const MetricRecord& record) {
    std::vector<std::string> parts{"diagnostics at " + group_digits(record.step)};
    const auto add = [&](const char* name, const std::string& key, auto format) {
      const auto mean = number(record, key.c_str()),
                 worst = number(record, (key + "_worst").c_str());
      if (mean && worst)
        parts.push_back(fmt::format("{} {}, worst {}", name, format(*mean), format(*worst)));
    };
    const auto plain = [](double value) { return fmt::format("{:.3g}", value); };
    add("sketch error", "sketch_error", plain);
    add("normaliser", "smallest_normaliser", plain);
    add("score", "largest_score", plain);
    add("outside the block", "share_outside_block", percent);
    add("rank", "effective_rank", plain);
    return join(parts);
  }

  static std::string checkpoint_line(const MetricRecord& record) {
    std::string cost;
    if (const auto bytes = number(record, "bytes")) cost = format_bytes(std::llround(*bytes));
    if (const auto seconds = number(record, "seconds"))
      cost += fmt::format("{}in {}", cost.empty() ? "" : " ", duration(*seconds));
    return join({"checkpoint at " + group_digits(record.step), text(record, "path"), cost});
  }

  std::string last_line(const MetricRecord& record) const {
    std::string what = record.event == "stop" ? "stopped at step " : "finished at step ";
    what += group_digits(record.step) +
            (record.step == options_.total_steps ? "" : "/" + group_digits(options_.total_steps));
    std::string seconds;
    if (const auto value = number(record, "seconds")) seconds = duration(*value);
    return join({what, text(record, "reason"), short_tokens(record.tokens) + " tokens",
                 loss_text(record), seconds});
  }

  static std::string duration(double seconds) {
    return seconds < 60 ? fmt::format("{:.1f} s", seconds) : format_duration(seconds);
  }

  ConsoleOptions options_;
  size_t step_width_;
  Forecast forecast_;
  Interval interval_;
  double seconds_per_step_ = 0;
  int64_t timed_steps_ = 0;
  std::optional<double> best_;
  std::unique_ptr<ProgressBar> bar_;
};

}  // namespace

std::unique_ptr<MetricSink> make_console_sink(const ConsoleOptions& options) {
  return std::make_unique<ConsoleSink>(options);
}

std::string next_steps(const std::string& run_folder) {
  // as a shell takes it
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '/' || c == '.' || c == '_' || c == '-' || c == '+' ||
           c == '=' || c == '@' || c >= 0x80;
  };
  std::string run = run_folder;
  if (!std::all_of(run.begin(), run.end(), plain)) {
    run = "'";
    for (const char c : run_folder) run += c == '\'' ? std::string("'\\''") : std::string(1, c);
    run += "'";
  }
  return fmt::format(
      "next: polysketch evaluate perplexity {0}; polysketch generate {0} --prompt 'Once'; "
      "polysketch "
      "report {0}",
      run);
}

}  // namespace polysketch
