// SPDX-License-Identifier: Apache-2.0
#include "config/rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

constexpr size_t most_lines = 100;

// The position of the first of `keys` that somebody wrote: that is what to change.
std::string position_of(const std::map<std::string, Origin>& origins,
                        const std::vector<std::string>& keys) {
  for (const auto& key : keys) {
    const auto found = origins.find(key);
    if (found != origins.end()) return found->second.position;
  }
  return "defaults";
}

struct Shape {
  int64_t layers, width, heads;
};

Shape shape_of(ModelSize size) {
  switch (size) {
    case ModelSize::small:
      return {12, 768, 12};
    case ModelSize::medium:
      return {24, 1024, 16};
    case ModelSize::large:
      return {36, 1280, 20};
    case ModelSize::custom:
      return {0, 0, 0};
  }
  throw InternalError("a model size without a shape");
}

const char* size_name(ModelSize size) {
  switch (size) {
    case ModelSize::small:
      return "small";
    case ModelSize::medium:
      return "medium";
    case ModelSize::large:
      return "large";
    case ModelSize::custom:
      return "custom";
  }
  throw InternalError("a model size without a name");
}

}  // namespace

void Problems::add(const std::string& position, const std::string& key, const std::string& got,
                   const std::string& want, const std::string& hint, const std::string& note) {
  add_line(fmt::format("{}: {}: got {}, want {}", position, key, got, want), key, hint, note);
}

void Problems::add_unknown(const std::string& position, const std::string& key,
                           const std::string& known, const std::string& hint,
                           const std::string& note) {
  add_line(fmt::format("{}: {}: unknown key; known keys: {}", position, key, known), key, hint,
           note);
}

void Problems::add_line(const std::string& line, const std::string& key, const std::string& hint,
                        const std::string& note) {
  bad_.insert(key);
  std::string question;
  if (!hint.empty())
    question = fmt::format("; did you mean '{}'{}?", hint, note.empty() ? "" : " (" + note + ")");
  lines_.push_back(line + question);
}

void Problems::throw_if_any() const {
  if (lines_.empty()) return;
  std::string text;
  for (size_t i = 0; i < std::min(lines_.size(), most_lines); ++i)
    text += (i > 0 ? "\n" : "") + lines_[i];
  if (lines_.size() > most_lines) text += fmt::format("\nand {} more", lines_.size() - most_lines);
  throw UserError(ExitCode::config, text);
}

void resolve_model(ModelConfig& model, const std::map<std::string, Origin>& origins,
                   std::map<std::string, std::string>& derived, Problems& problems) {
  const Shape shape = shape_of(model.size);
  const auto fill = [&](const std::string& key, int64_t& value, int64_t from_size) {
    if (value != 0 || problems.is_bad(key) || problems.is_bad("model.size")) return;
    if (from_size == 0) {
      problems.add(position_of(origins, {key, "model.size"}), key, "0 or nothing",
                   "a number, since model.size is custom");
      return;
    }
    value = from_size;
    derived[key] = fmt::format("model.size {}", size_name(model.size));
  };
  fill("model.layers", model.layers, shape.layers);
  fill("model.width", model.width, shape.width);
  fill("model.heads", model.heads, shape.heads);
  if (model.hidden == 0 && model.width > 0) {
    model.hidden = model.width * 8 / 3 / 8 * 8;
    derived["model.hidden"] = fmt::format("8/3 of model.width {}", model.width);
    if (model.hidden == 0) {
      problems.add(position_of(origins, {"model.hidden", "model.width"}), "model.hidden", "nothing",
                   "a number, since 8/3 of this model.width is below 8");
    }
  }
}

std::vector<int64_t> valid_worlds(int64_t sequences_per_step, int64_t shards) {
  const int64_t common = std::gcd(sequences_per_step, shards);  // of n and 0: n
  std::vector<int64_t> worlds, above;
  for (int64_t divisor = 1; divisor * divisor <= common; ++divisor) {
    if (common % divisor != 0) continue;
    worlds.push_back(divisor);
    if (divisor * divisor != common) above.push_back(common / divisor);
  }
  worlds.insert(worlds.end(), above.rbegin(), above.rend());
  return worlds;
}

void require_valid_world(const Config& config, int64_t world) {
  const int64_t sequences = config.training.batch_tokens / config.data.context;
  const bool canonical = config.distributed.reduce == Reduce::canonical;
  const std::vector<int64_t> fitting =
      valid_worlds(sequences, canonical ? config.distributed.shards : 0);
  if (std::binary_search(fitting.begin(), fitting.end(), world)) return;
  std::string list;
  for (size_t i = 0; i < fitting.size(); ++i)
    list += fmt::format("{}{}", i == 0 ? "" : i + 1 == fitting.size() ? " or " : ", ", fitting[i]);
  const bool even = sequences % world == 0;  // then it is the shards that do not divide
  throw UserError(ExitCode::config,
                  fmt::format("{}: {} do not divide among {} processes: use {} of them",
                              even ? "distributed.shards" : "training.batch_tokens",
                              even ? fmt::format("the {} shards of canonical reduction",
                                                 config.distributed.shards)
                                   : fmt::format("the {} sequences of {} tokens of a step",
                                                 sequences, config.data.context),
                              world, list));
}

void check_rules(const Config& config, const std::map<std::string, Origin>& origins,
                 Problems& problems) {
  // A rule speaks only where none of its keys is already in error.
  const auto rule = [&](const std::vector<std::string>& keys, bool holds, int64_t got,
                        const std::string& want) {
    for (const auto& key : keys) {
      if (problems.is_bad(key)) return;
    }
    if (!holds)
      problems.add(position_of(origins, keys), keys.front(), fmt::format("{}", got), want);
  };
  const auto& model = config.model;
  const auto& training = config.training;
  const int64_t context = config.data.context;

  if (model.heads > 0 && model.width > 0) {
    rule({"model.heads", "model.width", "model.size"}, model.width % model.heads == 0, model.heads,
         fmt::format("a divisor of model.width {}", model.width));
    rule({"model.heads", "model.width", "model.size"},
         model.width % model.heads != 0 || model.width / model.heads % 2 == 0, model.heads,
         fmt::format("heads of even width, where {} / {} is {}", model.width, model.heads,
                     model.width / model.heads));
  }
  const auto& attention = config.attention;
  rule({"attention.degree", "attention.kind"},
       attention.kind != AttentionKind::polysketch ||
           (attention.degree & (attention.degree - 1)) == 0,
       attention.degree, "a power of two, since attention.kind is polysketch");
  rule({"attention.features", "attention.kind"},
       attention.kind != AttentionKind::hedgehog || attention.features % 2 == 0, attention.features,
       "an even number, since attention.kind is hedgehog");
  rule({"training.batch_tokens", "data.context"}, training.batch_tokens % context == 0,
       training.batch_tokens, fmt::format("a multiple of data.context {}", context));
  if (const int64_t micro = training.micro_batch_tokens; micro != 0) {
    rule({"training.micro_batch_tokens", "data.context"}, micro % context == 0, micro,
         fmt::format("a multiple of data.context {}", context));
    rule({"training.micro_batch_tokens", "training.batch_tokens"},
         training.batch_tokens % micro == 0, micro,
         fmt::format("a divisor of training.batch_tokens {}", training.batch_tokens));
  }
  rule({"schedule.warmup", "training.steps"}, config.schedule.warmup <= training.steps,
       config.schedule.warmup, fmt::format("at most training.steps {}", training.steps));
}

}  // namespace polysketch
