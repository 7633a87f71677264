// SPDX-License-Identifier: Apache-2.0
#include "attention/ops/choice.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <ranges>

#include "support/error.hpp"

namespace polysketch::ops {
namespace {

std::vector<const Operation*>& all_operations() {
  static std::vector<const Operation*> all;
  return all;
}

/// What POLYSKETCH_OPS says.
struct Forced {
  std::string everywhere;                    ///< implementation; empty: none
  std::map<std::string, std::string> named;  ///< operation -> implementation
};

[[noreturn]] void fail(const std::string& text) {
  throw UserError(ExitCode::config, "POLYSKETCH_OPS: " + text);
}

bool has(const Operation& operation, std::string_view implementation) {
  return std::ranges::any_of(operation.preferred(),
                             [&](const Implementation& one) { return one.name == implementation; });
}

std::string names_of(const Operation& operation) {
  std::string names;
  for (const Implementation& one : operation.preferred())
    names += fmt::format("{}{}", names.empty() ? "" : " or ", one.name);
  return names;
}

const Operation& find(const std::string& name) {
  std::vector<std::string> known;
  for (const Operation* operation : all_operations()) {
    if (operation->name() == name) return *operation;
    known.emplace_back(operation->name());
  }
  std::ranges::sort(known);
  fail(fmt::format("there is no operation '{}': want one of {}", name, fmt::join(known, ", ")));
}

Forced parse(const std::string& text) {
  Forced forced;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string entry = text.substr(begin, end - begin);
    begin = end + 1;
    const size_t colon = entry.find(':');
    if (colon == std::string::npos) {
      if (std::ranges::none_of(all_operations(),
                               [&](const Operation* one) { return has(*one, entry); }))
        fail(
            fmt::format("no operation has an implementation '{}': want e.g. aten, or "
                        "polynomial:aten,sketch:cpu",
                        entry));
      forced.everywhere = entry;
      continue;
    }
    const std::string name = entry.substr(0, colon), implementation = entry.substr(colon + 1);
    const Operation& operation = find(name);
    if (!has(operation, implementation))
      fail(fmt::format("{} has no implementation '{}': want {}", name, implementation,
                       names_of(operation)));
    forced.named[name] = implementation;
  }
  return forced;
}

std::atomic<const Forced*> overruled{nullptr};

const Forced& forced_now() {
  if (const Forced* forced = overruled.load(std::memory_order_acquire)) return *forced;
  static const Forced environment = [] {
    const char* variable = std::getenv("POLYSKETCH_OPS");
    return parse(variable == nullptr ? "" : variable);
  }();
  return environment;
}

}  // namespace

Operation::Operation(std::string_view name, std::vector<Implementation> preferred)
    : name_(name), preferred_(std::move(preferred)) {
  all_operations().push_back(this);
}

bool Operation::permits(std::string_view implementation) const {
  const Forced& forced = forced_now();
  if (forced.named.empty() && forced.everywhere.empty()) return true;
  const auto named = forced.named.find(std::string(name_));
  if (named != forced.named.end()) return named->second == implementation;
  return !has(*this, forced.everywhere) || forced.everywhere == implementation;
}

void Operation::refuse() const {
  std::string permitted;
  for (const Implementation& one : preferred_) {
    if (permits(one.name)) permitted = one.name;
  }
  fail(
      fmt::format("{}:{} does not take these tensors (their device, type or width), or not on "
                  "this machine: leave it out",
                  name_, permitted));
}

std::string operations_in_use(const at::Device& device) {
  std::vector<std::string> all;
  for (const Operation* operation : all_operations()) {
    std::string used;
    for (const Implementation& one : operation->preferred()) {
      if (!operation->permits(one.name) || !one.serves(device)) continue;
      used += fmt::format("{}{}", used.empty() ? "" : ", else ", one.name);
      if (one.takes_all) break;
    }
    all.push_back(fmt::format("{} {}", operation->name(), used.empty() ? "none" : used));
  }
  std::ranges::sort(all);
  return fmt::format("{}", fmt::join(all, "; "));
}

ForcedOperations::ForcedOperations(const std::string& forced)
    : before_(overruled.exchange(new Forced(parse(forced)), std::memory_order_acq_rel)) {}

ForcedOperations::~ForcedOperations() {
  delete overruled.exchange(static_cast<const Forced*>(before_), std::memory_order_acq_rel);
}

}  // namespace polysketch::ops
