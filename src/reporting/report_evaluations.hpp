// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "reporting/run_history.hpp"

namespace polysketch {

/// The part of the report (HTML) with what was measured of the runs' checkpoints: of one run a row
/// for each measurement, of a repeated one the newest; of several runs a table for each thing that
/// was measured of more than one, with the newest result of each run, and a list of the rest. Empty
/// if nothing was measured.
std::string report_evaluations(const std::vector<RunHistory>& runs);

/// What a record measured and how: "test split of pg19 (10.6 MiB), windows of 1,024, bf16".
std::string measured_in_words(const EvaluationRecord& record);

}  // namespace polysketch
