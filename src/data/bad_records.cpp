// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/corpus.hpp"
#include "support/error.hpp"
#include "support/log.hpp"
#include "support/standard_streams.hpp"

namespace polysketch {
namespace {

constexpr int64_t kMaxSamples = 1000;
/// The fraction is not judged on fewer records than this, since the first bad record of a file
/// would otherwise always be over the limit.
constexpr int64_t kRecordsToJudge = 100;

std::string largest_first(const std::map<std::string, int64_t>& counts, size_t limit) {
  std::vector<std::pair<std::string, int64_t>> rows(counts.begin(), counts.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (size_t i = 0; i < rows.size() && i < limit; ++i)
    text += fmt::format("{}{} ({})", i ? ", " : "", rows[i].first, rows[i].second);
  if (rows.size() > limit) text += fmt::format(" and {} more", rows.size() - limit);
  return text;
}

std::string summary_of(const BadRecords::Counts& counts) {
  return fmt::format("{} of {} records are bad; by cause: {}; by file: {}", counts.bad,
                     counts.good + counts.bad, largest_first(counts.by_cause, 10),
                     largest_first(counts.by_file, 5));
}

}  // namespace

BadRecords::BadRecords(OnError policy, double max_fraction, int64_t max_in_a_row)
    : policy_(policy), max_fraction_(max_fraction), max_in_a_row_(max_in_a_row) {}

void BadRecords::write_samples_to(const std::string& path) {
  const std::lock_guard lock(mutex_);
  samples_path_ = path;
}

void BadRecords::report(const std::string& file, uint64_t record, uint64_t offset,
                        const std::string& cause) {
  if (policy_ == OnError::error) {
    throw UserError(
        ExitCode::bad_data,
        fmt::format("{}: record {}, byte {}: {}: fix the file, or set data.on_error: skip", file,
                    record, offset, cause));
  }
  const std::lock_guard lock(mutex_);
  ++counts_.bad;
  ++in_a_row_;
  // Positions would make every cause its own row.
  ++counts_.by_cause[cause.substr(0, cause.find(" ("))];
  ++counts_.by_file[file];
  if (!samples_path_.empty() && samples_ < kMaxSamples) {
    ++samples_;
    std::ofstream out(samples_path_, std::ios::app);
    out << json_text({{"file", file}, {"record", record}, {"offset", offset}, {"cause", cause}}, -1)
        << '\n';
    if (!out.flush()) {
      log_warning(
          fmt::format("{}: cannot be written: samples of bad records are not kept", samples_path_));
      samples_path_.clear();
    }
  }
  if (max_in_a_row_ > 0 && in_a_row_ > max_in_a_row_) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: more than {} bad records in a row (data.max_bad_in_a_row): {}",
                                file, max_in_a_row_, summary_of(counts_)));
  }
  const auto judged = static_cast<double>(std::max(counts_.good + counts_.bad, kRecordsToJudge));
  if (counts_.bad > std::max<int64_t>(1, static_cast<int64_t>(max_fraction_ * judged))) {
    throw UserError(
        ExitCode::bad_data,
        fmt::format("{}: more than {:g} of the records are bad (data.max_bad_fraction): {}", file,
                    max_fraction_, summary_of(counts_)));
  }
}

void BadRecords::good() {
  const std::lock_guard lock(mutex_);
  ++counts_.good;
  in_a_row_ = 0;
}

void BadRecords::count_empty(const std::string& cause) {
  const std::lock_guard lock(mutex_);
  ++counts_.empty;
  ++counts_.empty_by_cause[cause];
}

void BadRecords::count_split() {
  const std::lock_guard lock(mutex_);
  ++counts_.split;
}

BadRecords::Counts BadRecords::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

std::string BadRecords::summary() const { return summary_of(counts()); }

std::string BadRecords::empty_summary() const { return largest_first(counts().empty_by_cause, 10); }

}  // namespace polysketch
