// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace polysketch {

/// Where a value was written: "configs/x.yaml:12" for people, "configs/x.yaml:12:3" for errors.
/// Keys that nobody set are in no map.
struct Origin {
  std::string place;
  std::string position;
};

/// All that is wrong with a configuration, gathered before anything is thrown.
class Problems {
 public:
  /// Adds `position: key: got X, want Y; did you mean 'Z' (note)?` (hint and note may be empty).
  void add(const std::string& position, const std::string& key, const std::string& got,
           const std::string& want, const std::string& hint = {}, const std::string& note = {});
  /// Adds `position: key: unknown key; known keys: a, b; did you mean 'Z' (note)?`
  void add_unknown(const std::string& position, const std::string& key, const std::string& known,
                   const std::string& hint = {}, const std::string& note = {});
  /// The key's value is not to be trusted by later rules.
  bool is_bad(const std::string& key) const { return bad_.contains(key); }
  /// Throws UserError 78 with every line, if there is one.
  void throw_if_any() const;

 private:
  void add_line(const std::string& line, const std::string& key, const std::string& hint,
                const std::string& note);

  std::vector<std::string> lines_;
  std::set<std::string> bad_;
};

/// Fills the model's numbers from its size (docs/method.md §1) and notes in `derived` where each
/// came from; missing numbers of `custom` are problems.
void resolve_model(ModelConfig& model, const std::map<std::string, Origin>& origins,
                   std::map<std::string, std::string>& derived, Problems& problems);

/// Numbers of processes, ascending, among which the sequences of an optimiser step divide evenly.
/// shards: of canonical reduction, which have to divide too (0: there is no such reduction).
std::vector<int64_t> valid_worlds(int64_t sequences_per_step, int64_t shards = 0);

/// Throws UserError 78 with the numbers of processes that fit, unless a step of this configuration
/// divides among `world` processes.
void require_valid_world(const Config& config, int64_t world);

/// Rules that tie keys together.
void check_rules(const Config& config, const std::map<std::string, Origin>& origins,
                 Problems& problems);

}  // namespace polysketch
