// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace polysketch {

/// A text that a model wrote.
struct Sample {
  std::string prompt;  ///< empty: the start of a document
  uint64_t seed = 1;
  std::string text;  ///< with the prompt before it
};

/// `samples.txt` of a run: under a line `=== step N` the samples of that step, each under a line
/// `--- prompt (seed n)`. What stands before the first step, as other programs may write it, is
/// left alone.
struct SampleSection {
  std::optional<int64_t> step;
  std::string text;  ///< without the line of the step
};
std::vector<SampleSection> split_samples(const std::string& file);

/// The file with further samples of a step; those of the same prompt and seed are replaced.
std::string add_samples(const std::string& file, int64_t step, const std::vector<Sample>& samples);

/// The file without the steps after this one, which a run that went back to it will reach again.
std::string without_later_samples(const std::string& file, int64_t step);

/// Writes `<run>/samples.txt`. A folder that cannot be written costs a warning and nothing else.
void keep_samples(const std::filesystem::path& run, const std::string& file);

/// `<run>/samples.txt`; nothing if there is none.
std::optional<std::string> read_samples(const std::filesystem::path& run);

}  // namespace polysketch
