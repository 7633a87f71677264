// SPDX-License-Identifier: Apache-2.0
#include "reporting/evaluation_record.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <system_error>
#include <utility>

#include "reporting/append_file.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* file_name = "evaluations.jsonl";

std::string text(const ordered_json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// Nothing if the row is damaged.
std::optional<EvaluationRecord> parse(const std::string& line) {
  const ordered_json row = ordered_json::parse(line, nullptr, false);
  if (!row.is_object()) return std::nullopt;
  const auto has = [&](const char* key, auto holds) {
    const auto found = row.find(key);
    return found != row.end() && holds(*found);
  };
  const auto object = [](const ordered_json& value) { return value.is_object(); };
  const auto number = [](const ordered_json& value) { return value.is_number(); };
  if (text(row, "task").empty() || !has("measured", object) || !has("figures", object) ||
      !has("step", [](const ordered_json& value) { return value.is_number_integer(); }))
    return std::nullopt;
  EvaluationRecord record;
  record.task = text(row, "task");
  if (has("time", number)) record.time = row["time"].get<double>();
  record.step = row["step"].get<int64_t>();
  if (has("tokens", number)) record.tokens = row["tokens"].get<int64_t>();
  record.checkpoint = text(row, "checkpoint");
  record.measured = row["measured"];
  record.figures = row["figures"];
  record.device = text(row, "device");
  record.program = text(row, "program");
  return record;
}

bool is_run(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / "metrics.jsonl", error) || fs::exists(folder / "config.yaml", error);
}

}  // namespace

void keep_evaluation(const fs::path& run, EvaluationRecord record) {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const ordered_json row{{"task", record.task},
                         {"time", std::round(now * 1e3) / 1e3},
                         {"step", record.step},
                         {"tokens", record.tokens},
                         {"checkpoint", record.checkpoint},
                         {"measured", std::move(record.measured)},
                         {"figures", std::move(record.figures)},
                         {"device", record.device},
                         {"program", record.program}};
  const fs::path path = run / file_name;
  std::error_code error;
  if (!fs::is_directory(run, error)) {
    log_warning(fmt::format("{}: is gone; the result is not kept", run.string()));
    return;
  }
  const bool is_new = !fs::exists(path, error);
  {
    AppendFile file(path.string(), "the result is not kept in the run");
    file.append_shared_line(row.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
    file.sync();
  }
  if (!is_new || !fs::exists(path, error)) return;
  try {
    fsync_directory(run);  // the file's name is as durable as its row
  } catch (const UserError& failed) {
    log_warning(failed.what());
  }
}

KeptEvaluations read_evaluations(const fs::path& run) {
  KeptEvaluations kept;
  std::error_code error;
  if (!fs::is_regular_file(run / file_name, error)) return kept;
  std::ifstream file(run / file_name, std::ios::binary);
  for (std::string line; std::getline(file, line);) {
    if (line.empty()) continue;
    if (auto record = parse(line)) {
      kept.records.push_back(std::move(*record));
    } else {
      ++kept.damaged_rows;
    }
  }
  return kept;
}

std::optional<fs::path> run_of_checkpoint(const fs::path& checkpoint) {
  std::error_code error;
  // As it was named first: the folder `checkpoints` of a run may be a link to another disk. Then as
  // it really lies: a link may point into a run.
  for (const fs::path& path :
       {fs::absolute(checkpoint, error), fs::weakly_canonical(checkpoint, error)}) {
    const fs::path folder = (path / "").lexically_normal().parent_path(),
                   checkpoints = folder.parent_path();
    if (checkpoints.filename() == "checkpoints" && is_run(checkpoints.parent_path()))
      return checkpoints.parent_path();
  }
  return std::nullopt;
}

}  // namespace polysketch
