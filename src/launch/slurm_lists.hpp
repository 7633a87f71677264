// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace polysketch {

/// The hosts of a list as Slurm writes it: names with commas between, each with any number of
/// brackets that hold numbers and ranges: `node[01-03,07],login1`, `r[1-2]n[0-3]`. Leading zeros
/// are kept, the last bracket runs fastest. At most `most` hosts are given, in the order of the
/// list. Nothing if the text is no such list.
std::optional<std::vector<std::string>> expand_host_list(std::string_view list,
                                                         size_t most = 1 << 20);

/// Tasks of each machine as Slurm writes them: `2(x3),1` is 2, 2, 2, 1. Nothing if the text is no
/// such list or names more than a million machines.
std::optional<std::vector<int64_t>> expand_task_counts(std::string_view list);

}  // namespace polysketch
