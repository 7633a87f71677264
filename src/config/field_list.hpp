// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/keys.hpp"
#include "support/error.hpp"

namespace polysketch {

/// Collects fields; each call describes one key, and what it returns can be narrowed further until
/// the next call.
class FieldList {
 public:
  /// Of the keys that follow, unless one says otherwise.
  void effect(Effect effect, bool per_process = false) {
    effect_ = effect;
    per_process_ = per_process;
  }
  Field& count(std::string path, int64_t& value, std::string unit, int64_t least,
               std::string meaning) {
    Field& field = add(std::move(path), &value, std::move(meaning));
    field.unit = std::move(unit);
    field.least = least;
    return field;
  }
  Field& real(std::string path, double& value, double low, double high, std::string meaning) {
    Field& field = add(std::move(path), &value, std::move(meaning));
    field.low = low;
    field.high = high;
    return field;
  }
  Field& flag(std::string path, bool& value, std::string meaning) {
    return add(std::move(path), &value, std::move(meaning));
  }
  Field& text(std::string path, std::string& value, std::string meaning) {
    return add(std::move(path), &value, std::move(meaning));
  }
  template <class E>
  Field& choice(std::string path, E& value, std::vector<std::pair<std::string, E>> options,
                std::string meaning) {
    ChoiceSlot slot;
    for (const auto& [name, option] : options) slot.names.push_back(name);
    slot.get = [&value, options] {
      for (size_t i = 0; i < options.size(); ++i) {
        if (options[i].second == value) return i;
      }
      throw InternalError("a configuration choice holds a value without a name");
    };
    slot.set = [&value, options](size_t i) { value = options.at(i).second; };
    return add(std::move(path), std::move(slot), std::move(meaning));
  }
  std::vector<Field> take() { return std::move(fields_); }

 private:
  template <class Slot>
  Field& add(std::string path, Slot slot, std::string meaning) {
    Field field;
    field.path = std::move(path);
    field.meaning = std::move(meaning);
    field.slot = std::move(slot);
    field.effect = effect_;
    field.per_process = per_process_;
    fields_.push_back(std::move(field));
    return fields_.back();
  }
  std::vector<Field> fields_;
  Effect effect_ = Effect::model;
  bool per_process_ = false;
};

}  // namespace polysketch
