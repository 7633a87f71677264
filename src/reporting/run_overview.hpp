// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "reporting/run_history.hpp"

namespace polysketch {

/// What the run is and how far it came, as (name, text) pairs, always the same names in the same
/// order; an empty text where the run does not tell.
std::vector<std::pair<std::string, std::string>> run_overview(const RunHistory& run);

/// The attention mechanism of a configuration in words: "polysketch, learned sketch of 32, exact
/// blocks of 1,024, degree 4". Empty if the configuration names none.
std::string attention_in_words(const std::map<std::string, std::string>& config);

}  // namespace polysketch
