// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "config/config.hpp"

namespace polysketch {

/// An enumeration as names and positions.
struct ChoiceSlot {
  std::vector<std::string> names;
  std::function<size_t()> get;
  std::function<void(size_t)> set;
};

/// Why a value was refused.
struct Refusal {
  std::string want;  ///< what would have been accepted, to follow "want "
  std::string hint;  ///< the nearest accepted word, or empty
};

/// What another value of a key means to a run that goes on from a checkpoint.
enum class Effect {
  free,    ///< nothing: neither model nor tokens nor updates depend on it
  recipe,  ///< other updates from here on: only with --allow-config-change
  model,   ///< another model or other tokens: not in this run
};
const char* effect_name(Effect effect);  ///< for the reference: "free", "asks", "fixed"

/// One key of the configuration, bound to the member of one Config that it sets. The YAML reader,
/// --set, the writers, the JSON schema and the reference all walk the same list (list_fields);
/// nothing else knows names, ranges or meanings.
struct Field {
  std::string path;     ///< "training.batch_tokens"
  std::string meaning;  ///< a sentence, for schema and reference
  Effect effect = Effect::model;
  bool per_process = false;  ///< may differ among processes: paths and devices of each machine
  std::variant<int64_t*, double*, bool*, std::string*, ChoiceSlot> slot;

  std::string unit;   ///< counts: what is counted
  int64_t least = 0;  ///< counts: range, both ends allowed
  int64_t most = std::numeric_limits<int64_t>::max();
  bool even = false;  ///< counts: only even ones
  /// counts: words that stand for a number (`all`)
  std::vector<std::pair<std::string, int64_t>> words;
  double low = 0;  ///< reals: range, lower end allowed unless low_open
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;
  /// texts: regular expression (POSIX extended and ECMAScript alike) of the whole text; empty: any
  std::string pattern;
  std::string form;  ///< texts: the pattern in words

  std::string type() const;   ///< "count", "real", "true or false", "text" or the choices
  std::string range() const;  ///< "1 to 64, even"; empty if there is nothing to say
  std::string want() const;   ///< type and range as an error says them

  /// Sets the value from text as YAML and --set write it, or says why not and leaves it alone.
  /// `plain`: not in quotes.
  std::optional<Refusal> set(const std::string& text, bool plain);
  /// The value as set() reads it: counts in full, reals in their shortest exact form.
  std::string text() const;
};

/// Every key in the order of the documentation, bound to `config`, which must outlive the result.
std::vector<Field> list_fields(Config& config);

/// What a section is about; `path` is "training" or "data.shuffle".
std::string section_meaning(std::string_view path);

/// Text of one key's value, for messages: value_text(config, "attention.kind") is "softmax".
std::string value_text(const Config& config, std::string_view path);

}  // namespace polysketch
