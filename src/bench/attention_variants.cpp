// SPDX-License-Identifier: Apache-2.0
#include "bench/attention_variants.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <sstream>

#include "config/keys.hpp"
#include "support/checked_numbers.hpp"
#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {

const char* const attention_variant_forms =
    "softmax, polynomial[:p=N], polysketch[:learned|learned-local|random|random-local[:R]][:p=N], "
    "performer, hedgehog, sliding_window, "
    "local_polynomial[:p=N]";

namespace {

constexpr int64_t longest = int64_t{1} << 24;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  if (text.empty() || text.back() == separator) parts.emplace_back();
  return parts;
}

[[noreturn]] void refuse(const std::string& name, const std::string& reason,
                         const std::string& hint = "") {
  throw UserError(ExitCode::usage,
                  fmt::format("--kinds: '{}': {}{}", name, reason,
                              hint.empty() ? "" : "; did you mean '" + hint + "'?"));
}

/// Sets one key through the list of keys, so that names and ranges are those of the configuration.
class Variant {
 public:
  Variant(const std::string& name, const AttentionConfig& base) : name_(name) {
    config_.attention = base;
  }

  std::optional<Refusal> set(const std::string& key, const std::string& value) {
    for (Field& field : list_fields(config_)) {
      if (field.path == "attention." + key) return field.set(value, true);
    }
    throw InternalError("no such attention key");
  }
  void set_or_refuse(const std::string& key, const std::string& value) {
    if (const auto refusal = set(key, value))
      refuse(name_, fmt::format("got '{}', want {}", value, refusal->want));
  }
  const AttentionConfig& config() const { return config_.attention; }

  /// `learned`, `random-local` and the like. False if the word is none of them.
  bool take_sketch(const std::string& word) {
    const bool local = word.ends_with("-local");
    const std::string sketch = local ? word.substr(0, word.size() - 6) : word;
    if (set("sketch", sketch)) return false;
    config_.attention.local = local ? LocalAttention::exact : LocalAttention::none;
    return true;
  }

 private:
  std::string name_;
  Config config_;
};

AttentionVariant parse_variant(const std::string& name, const AttentionConfig& base) {
  const std::vector<std::string> parts = split(name, ':');
  Variant variant(name, base);
  if (const auto refusal = variant.set("kind", parts[0]))
    refuse(name, fmt::format("unknown kind; known kinds: {}", attention_variant_forms),
           refusal->hint);
  const AttentionKind kind = variant.config().kind;
  const bool sketched = kind == AttentionKind::polysketch;
  const bool has_degree =
      sketched || kind == AttentionKind::polynomial || kind == AttentionKind::local_polynomial;
  bool sketch_named = false;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& word = parts[i];
    if (has_degree && word.starts_with("p=")) {
      variant.set_or_refuse("degree", word.substr(2));
    } else if (sketched && !sketch_named && variant.take_sketch(word)) {
      sketch_named = true;
    } else if (sketched && sketch_named && !word.empty() && word.front() >= '0' &&
               word.front() <= '9') {
      variant.set_or_refuse("sketch_size", word);
    } else {
      std::vector<std::string> known;
      if (has_degree) known.emplace_back("p=2");
      if (sketched)
        known.insert(known.end(), {"learned", "learned-local", "random", "random-local"});
      refuse(name,
             fmt::format("'{}' means nothing there, want {}", word,
                         known.empty() ? "nothing behind the kind" : attention_variant_forms),
             nearest(word, known).value_or(""));
    }
  }
  return {name, variant.config()};
}

}  // namespace

std::vector<AttentionVariant> parse_attention_variants(const std::string& text,
                                                       const AttentionConfig& base) {
  std::vector<AttentionVariant> variants;
  for (const std::string& name : split(text, ',')) {
    for (const AttentionVariant& other : variants) {
      if (other.name == name) refuse(name, "stands there twice");
    }
    variants.push_back(parse_variant(name, base));
  }
  return variants;
}

std::vector<int64_t> parse_lengths(const std::string& text, const std::string& option) {
  std::vector<int64_t> lengths = checked_counts(option, text, 1, longest);
  std::sort(lengths.begin(), lengths.end());
  const auto twice = std::adjacent_find(lengths.begin(), lengths.end());
  if (twice != lengths.end())
    throw UserError(ExitCode::usage, fmt::format("{}: {} stands there twice", option, *twice));
  return lengths;
}

}  // namespace polysketch
