// SPDX-License-Identifier: Apache-2.0
#include "reporting/run_history.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <limits>
#include <system_error>
#include <utility>

#include "reporting/sample_file.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

double number(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_number() ? found->get<double>()
                                                  : std::numeric_limits<double>::quiet_NaN();
}

StepRow step_row(const json& row) {
  return {row["step"].get<int64_t>(),
          number(row, "tokens"),
          number(row, "loss"),
          number(row, "learning_rate"),
          number(row, "gradient_norm"),
          number(row, "tokens_per_second"),
          number(row, "seconds_per_step"),
          number(row, "data_wait_fraction"),
          number(row, "mfu"),
          number(row, "peak_bytes")};
}

ValidationRow validation_row(const json& row) {
  return {row["step"].get<int64_t>(), number(row, "tokens"),        number(row, "loss"),
          number(row, "perplexity"),  number(row, "bits_per_byte"), number(row, "seconds")};
}

DiagnosticsRow diagnostics_row(const json& row) {
  return {row["step"].get<int64_t>(),   number(row, "tokens"),
          number(row, "sketch_error"),  number(row, "smallest_normaliser"),
          number(row, "largest_score"), number(row, "share_outside_block"),
          number(row, "effective_rank")};
}

std::string text_of(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// Puts the rows of metrics.jsonl into a history, in the order in which they were written.
class RowReader {
 public:
  explicit RowReader(RunHistory& run) : run_(run) {}

  void add(const std::string& text) {
    const json row = json::parse(text, nullptr, false);
    if (!row.is_object() || text_of(row, "event").empty() || !row.contains("step") ||
        !row["step"].is_number_integer()) {
      ++run_.damaged_rows;
      return;
    }
    if (std::isnan(first_time_)) first_time_ = number(row, "time");
    const auto event = row["event"].get<std::string>();
    if (event == "start") return start(row);
    confirm_start();
    // A checkpoint may follow an error: what was done until then is saved.
    if (event != "checkpoint") {
      run_.state = event == "end"     ? RunState::finished
                   : event == "stop"  ? RunState::stopped
                   : event == "error" ? RunState::failed
                                      : RunState::open;
    }
    if (event == "error") run_.error = text_of(row, "message");
    if (event == "step") run_.steps.push_back(step_row(row));
    if (event == "validation") run_.validations.push_back(validation_row(row));
    if (event == "diagnostics") run_.diagnostics.push_back(diagnostics_row(row));
    if (const double seconds = number(row, "seconds"); event == "checkpoint" && seconds > 0)
      run_.checkpoint_seconds += seconds;
  }

  /// NaN if no row tells.
  double first_time() const { return first_time_; }

 private:
  void start(const json& row) {
    const StartRow fields{number(row, "parameters"), number(row, "flops_per_token"),
                          text_of(row, "device"), text_of(row, "commit")};
    const Resumption resumption{row["step"].get<int64_t>(), number(row, "tokens")};
    if (run_.state != RunState::finished) run_.state = RunState::open;
    // A finished run that was started once more may have had nothing to do: only what follows tells
    // that it went on.
    unconfirmed_ = std::make_pair(fields, resumption);
    if (run_.state != RunState::finished) confirm_start();
  }
  void confirm_start() {
    if (!unconfirmed_) return;
    ++run_.starts;
    run_.start = unconfirmed_->first;
    if (unconfirmed_->second.step > 0) run_.resumptions.push_back(unconfirmed_->second);
    unconfirmed_.reset();
  }

  RunHistory& run_;
  std::optional<std::pair<StartRow, Resumption>> unconfirmed_;
  double first_time_ = std::numeric_limits<double>::quiet_NaN();
};

std::string trimmed(std::string text) {
  text.erase(0, std::min(text.find_first_not_of(" \t\r"), text.size()));
  text.erase(text.find_last_not_of(" \t\r") + 1);
  return text;
}

std::string read_if_there(const fs::path& path) {
  return kind_of_file(path) == FileKind::regular ? read_file(path, uint64_t{16} << 20)
                                                 : std::string();
}

}  // namespace

std::map<std::string, std::string> flatten_config(const std::string& yaml) {
  std::map<std::string, std::string> flat;
  std::vector<std::string> sections;
  for (size_t begin = 0; begin < yaml.size();) {
    const size_t end = std::min(yaml.find('\n', begin), yaml.size());
    std::string line = yaml.substr(begin, end - begin);
    begin = end + 1;
    const size_t indent = line.find_first_not_of(' ');
    const size_t colon = line.find(':');
    if (indent == std::string::npos || line[indent] == '#' || colon == std::string::npos) continue;
    sections.resize(std::min(sections.size(), indent / 2));
    const std::string key = line.substr(indent, colon - indent);
    std::string value = line.substr(colon + 1);
    if (const size_t comment = value.find("  #"); comment != std::string::npos)
      value.erase(comment);
    value = trimmed(value);
    if (value.empty()) {
      sections.push_back(key);
      continue;
    }
    if (value.size() >= 2 && value.front() == '"')
      value = json::parse(value, nullptr, false).is_string() ? json::parse(value).get<std::string>()
                                                             : value;
    std::string path;
    for (const std::string& section : sections) path += section + ".";
    flat[path + key] = value;
  }
  return flat;
}

void tell_names_apart(std::vector<RunHistory>& runs) {
  std::map<std::string, int> uses;
  for (const RunHistory& run : runs) ++uses[run.name];
  for (RunHistory& run : runs) {
    if (uses[run.name] > 1) run.name += fmt::format(" ({})", run.folder.string());
  }
}

RunHistory read_run(const fs::path& folder) {
  RunHistory run;
  run.folder = fs::path(folder / "").lexically_normal().parent_path();
  const fs::path metrics = run.folder / "metrics.jsonl";
  if (kind_of_file(metrics) != FileKind::regular)
    throw UserError(
        ExitCode::missing_input,
        fmt::format("{}: no such file; give the folder of a training run", metrics.string()));
  errno = 0;
  std::ifstream file(metrics, std::ios::binary);
  if (!file) throw_system_error(metrics, "read", errno, exit_code_of_reading(errno));
  RowReader rows(run);
  for (std::string row; std::getline(file, row);) {
    if (!row.empty()) rows.add(row);
  }
  if (file.bad()) throw_system_error(metrics, "read", errno, ExitCode::io);
  if (run.steps.empty() && run.validations.empty()) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: has no rows of steps or validations; nothing to report yet",
                                metrics.string()));
  }
  std::stable_sort(run.steps.begin(), run.steps.end(),
                   [](const StepRow& a, const StepRow& b) { return a.step < b.step; });
  std::stable_sort(run.validations.begin(), run.validations.end(),
                   [](const ValidationRow& a, const ValidationRow& b) { return a.step < b.step; });
  std::stable_sort(
      run.diagnostics.begin(), run.diagnostics.end(),
      [](const DiagnosticsRow& a, const DiagnosticsRow& b) { return a.step < b.step; });

  KeptEvaluations kept = read_evaluations(run.folder);
  std::erase_if(kept.records, [&](const EvaluationRecord& record) {
    return record.time > 0 && record.time < rows.first_time();
  });
  run.evaluations = std::move(kept.records);
  run.damaged_evaluations = kept.damaged_rows;

  run.config_text = read_if_there(run.folder / "config.yaml");
  run.config = flatten_config(run.config_text);
  const auto name = run.config.find("run.name");
  std::error_code error;
  run.name =
      name != run.config.end() ? name->second : fs::absolute(run.folder, error).filename().string();
  run.about = nlohmann::ordered_json::parse(read_if_there(run.folder / "run.json"), nullptr, false);
  if (!run.about.is_object()) run.about = nullptr;
  if (kind_of_file(run.folder / "samples.txt") != FileKind::nothing)
    run.samples = read_samples(run.folder);
  return run;
}

}  // namespace polysketch
