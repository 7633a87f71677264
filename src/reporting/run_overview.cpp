// SPDX-License-Identifier: Apache-2.0
#include "reporting/run_overview.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "reporting/number_text.hpp"
#include "reporting/step_statistics.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

using Settings = std::map<std::string, std::string>;

std::string setting(const Settings& config, const std::string& key) {
  const auto found = config.find(key);
  return found == config.end() ? std::string() : found->second;
}

std::optional<int64_t> count(const Settings& config, const std::string& key) {
  return parse_count(setting(config, key));
}

/// A count with its digits grouped; what stands there if it is no count.
std::string grouped(const Settings& config, const std::string& key) {
  const auto value = count(config, key);
  return value ? group_digits(*value) : setting(config, key);
}

std::string with_unit(const std::string& text, const char* unit) {
  return text.empty() ? text : text + " " + unit;
}

std::string state_of(const RunHistory& run) {
  std::string text;
  switch (run.state) {
    case RunState::finished:
      text = "finished";
      break;
    case RunState::stopped:
      text = "stopped, can be resumed";
      break;
    case RunState::failed:
      text = "ended by an error" + (run.error.empty() ? "" : ": " + run.error);
      break;
    case RunState::open:
      text = "running or interrupted";
  }
  if (run.starts > 1) text += fmt::format(" (started {} times)", run.starts);
  return text;
}

std::string steps_of(const RunHistory& run) {
  const int64_t step = std::max(run.steps.empty() ? 0 : run.steps.back().step,
                                run.validations.empty() ? 0 : run.validations.back().step);
  const std::string planned = grouped(run.config, "training.steps");
  return group_digits(step) + (planned.empty() ? "" : " of " + planned);
}

std::string shape_of(const Settings& config) {
  const auto layers = count(config, "model.layers"), width = count(config, "model.width"),
             heads = count(config, "model.heads");
  // 0: what model.size says, which a resolved configuration never leaves open
  if (!layers || !width || !heads || *layers == 0 || *width == 0 || *heads == 0)
    return setting(config, "model.size");
  return fmt::format("{} layers x {} wide, {} {} of {}", group_digits(*layers),
                     group_digits(*width), group_digits(*heads), *heads == 1 ? "head" : "heads",
                     group_digits(*width / *heads));
}

std::string batch_of(const Settings& config) {
  const auto tokens = count(config, "training.batch_tokens"),
             context = count(config, "data.context");
  std::string text = with_unit(grouped(config, "training.batch_tokens"), "tokens");
  if (tokens && context && *context > 0 && *tokens % *context == 0) {
    const int64_t sequences = *tokens / *context;
    text +=
        fmt::format(" ({} {})", group_digits(sequences), sequences == 1 ? "sequence" : "sequences");
  }
  return text;
}

/// The whole time that the rows account for, and its parts where there is more than one.
std::string time_of(const RunHistory& run) {
  const double steps = sum_of(run.steps, &StepRow::seconds);
  double validation = 0;
  for (const ValidationRow& row : run.validations)
    validation += std::isfinite(row.seconds) ? row.seconds : 0;
  const double all = steps + validation + run.checkpoint_seconds;
  if (!(all > 0)) return {};
  std::string parts;
  const auto add = [&](const char* name, double seconds) {
    if (seconds >= 0.5)
      parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", name, format_duration(seconds));
  };
  add("steps", steps);
  add("validation", validation);
  add("checkpoints", run.checkpoint_seconds);
  const bool several = parts.find(',') != std::string::npos;
  return format_duration(all) + (several ? " (" + parts + ")" : "");
}

}  // namespace

std::string attention_in_words(const Settings& config) {
  const std::string kind = setting(config, "attention.kind");
  const std::string degree = ", degree " + setting(config, "attention.degree");
  const std::string blocks = "blocks of " + grouped(config, "attention.block");
  if (kind == "polynomial") return kind + degree;
  if (kind == "polysketch") {
    return fmt::format(
        "polysketch, {} sketch of {}, {}{}", setting(config, "attention.sketch"),
        grouped(config, "attention.sketch_size"),
        setting(config, "attention.local") == "none" ? "no exact blocks" : "exact " + blocks,
        degree);
  }
  if (kind == "local_polynomial") return "local polynomial, " + blocks + degree;
  if (kind == "sliding_window")
    return "softmax in a sliding window of " + grouped(config, "attention.window");
  if (kind == "performer" || kind == "hedgehog") {
    int64_t features = count(config, "attention.features").value_or(0);
    const int64_t heads = count(config, "model.heads").value_or(0);
    if (features == 0 && kind == "performer") features = 2048;
    if (features == 0 && heads > 0) features = 2 * count(config, "model.width").value_or(0) / heads;
    std::string text = kind;
    if (features > 0)
      text += fmt::format(", {} {} features", group_digits(features),
                          kind == "performer" ? "random" : "learned");
    const int64_t redraw = count(config, "attention.redraw").value_or(0);
    if (kind == "performer" && redraw > 0)
      text += fmt::format(", drawn anew every {} steps", group_digits(redraw));
    return text;
  }
  return kind;
}

std::vector<std::pair<std::string, std::string>> run_overview(const RunHistory& run) {
  const StartRow start = run.start.value_or(StartRow{missing, missing, {}, {}});
  const double tokens =
      std::fmax(run.steps.empty() ? missing : run.steps.back().tokens,
                run.validations.empty() ? missing : run.validations.back().tokens);
  const double speed = median_of(run.steps, &StepRow::tokens_per_second);
  const double peak = highest_of(run.steps, &StepRow::peak_bytes);
  const auto whole = [](double value, auto text) {
    return std::isfinite(value) ? text(std::llround(value)) : std::string();
  };
  return {
      {"state", state_of(run)},
      {"steps", steps_of(run)},
      {"tokens", whole(tokens, short_tokens)},
      {"time", time_of(run)},
      {"tokens per second, median", std::isfinite(speed) ? short_rate(speed) : ""},
      {"model FLOPs utilisation, median", percent(median_of(run.steps, &StepRow::mfu))},
      {"waiting for data", percent(waited_share(run.steps))},
      {"peak memory", whole(peak, format_bytes)},
      {"parameters", whole(start.parameters, short_tokens)},
      {"FLOPs per token", whole(start.flops_per_token, short_tokens)},
      {"model", shape_of(run.config)},
      {"attention", attention_in_words(run.config)},
      {"context", with_unit(grouped(run.config, "data.context"), "tokens")},
      {"batch", batch_of(run.config)},
      {"corpus", setting(run.config, "data.corpus")},
      {"device", start.device.empty() ? setting(run.config, "training.device") : start.device},
      {"precision", setting(run.config, "training.precision")},
  };
}

}  // namespace polysketch
