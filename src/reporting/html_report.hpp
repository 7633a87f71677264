// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "reporting/run_history.hpp"

namespace polysketch {

/// One HTML page of one or more runs: plots (loss of training and validation against tokens,
/// learning rate, gradient norm, speed), a table of figures and settings, the machine, samples. It
/// stands alone: no network, no scripts; light or dark as the reader's system is.
std::string html_report(const std::vector<RunHistory>& runs);

}  // namespace polysketch
