// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "reporting/run_history.hpp"

namespace polysketch {

/// The rows of one run: names, the same for all runs of a table, and texts.
using TableColumn = std::vector<std::pair<std::string, std::string>>;

/// A table (HTML) with a column for each run. Rows that no run fills are left out; rows in which
/// runs differ stand out if asked for.
std::string run_table(const std::vector<RunHistory>& runs, const std::vector<TableColumn>& columns,
                      bool mark_differences);

/// A table with a row of headings; cells as they are given.
std::string plain_table(const std::vector<std::string>& headings,
                        const std::vector<std::vector<std::string>>& rows);

}  // namespace polysketch
