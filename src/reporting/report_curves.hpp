// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "reporting/run_history.hpp"

namespace polysketch {

/// The part of the report with pictures (HTML): loss, learning rate, gradient norm, speed, and what
/// runs saw of their attention weights.
std::string report_curves(const std::vector<RunHistory>& runs);

}  // namespace polysketch
