// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "reporting/append_file.hpp"
#include "reporting/metric_sink.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

/// The step of a row; nothing if the row is damaged. Rows as this program writes them are read
/// without parsing the whole of them.
std::optional<int64_t> step_of_row(const std::string& row) {
  constexpr std::string_view key = "\",\"step\":";
  if (row.compare(0, 10, "{\"event\":\"") == 0 && row.back() == '}') {
    const size_t at = row.find(key, 10);
    int64_t step = 0;
    if (at != std::string::npos && row.find_first_of("\"\\", 10) == at &&
        std::from_chars(row.data() + at + key.size(), row.data() + row.size(), step).ec ==
            std::errc{}) {
      return step;
    }
  }
  const auto parsed = nlohmann::json::parse(row, nullptr, false);
  if (!parsed.is_object() || !parsed.contains("step") || !parsed["step"].is_number_integer())
    return std::nullopt;
  return parsed["step"].get<int64_t>();
}

struct KeptRows {
  uint64_t bytes = 0;     ///< of the rows to keep, if nothing has to go before them
  bool is_prefix = true;  ///< no row to keep stands after one to drop
  int64_t dropped = 0;
};

/// Runs over the rows; `keep` gets those of steps up to `resume_step`.
template <typename Keep>
KeptRows sift(const fs::path& path, int64_t resume_step, Keep keep) {
  KeptRows result;
  std::ifstream file(path, std::ios::binary);
  std::string row;
  while (std::getline(file, row)) {
    const bool whole = !file.eof();  // the last line break may be missing after a crash
    const auto step = whole && !row.empty() ? step_of_row(row) : std::nullopt;
    if (!step || *step > resume_step) {
      ++result.dropped;
      continue;
    }
    if (result.dropped > 0) result.is_prefix = false;
    result.bytes += row.size() + 1;
    keep(row);
  }
  return result;
}

/// Cuts off what a run wrote after the checkpoint that it resumes from. Where two runs wrote one
/// file by turns, rows to keep stand behind rows to drop: then the file is written anew, whole or
/// not at all.
void cut_rows(const std::string& path, int64_t resume_step) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return;
  const KeptRows kept = sift(path, resume_step, [](const std::string&) {});
  if (kept.dropped == 0) return;
  log_line(LogLevel::debug,
           fmt::format("{}: cutting off {} rows after step {}", path, kept.dropped, resume_step));
  if (kept.is_prefix) {
    fs::resize_file(path, kept.bytes, error);
    if (error)
      log_warning(fmt::format("{}: rows after step {} cannot be cut off: {}", path, resume_step,
                              error.message()));
    return;
  }
  std::string content;
  sift(path, resume_step, [&](const std::string& row) { content += row + "\n"; });
  try {
    write_file_durably(path, content);
  } catch (const UserError& unwritable) {
    log_warning(fmt::format("{}: rows after step {} cannot be cut off: {}", path, resume_step,
                            unwritable.what()));
  }
}

class JsonlSink : public MetricSink {
 public:
  explicit JsonlSink(const std::string& path)
      : file_(path, "metrics.jsonl from here on is missing, the run goes on") {}

  void record(const MetricRecord& record) override {
    const double now =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    nlohmann::ordered_json row;
    row["event"] = record.event;
    row["step"] = record.step;
    row["tokens"] = record.tokens;
    row["time"] = std::round(now * 1e3) / 1e3;
    for (const auto& [key, value] : record.fields.items()) row[key] = value;
    // The library writes a number that is not finite as null. Text that is not UTF-8, as a path may
    // be, must not end the run.
    file_.append(row.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  }

  void flush() override { file_.sync(); }
  void stay_in(const std::string& run_folder) override { file_.stay_in(run_folder); }

 private:
  AppendFile file_;
};

}  // namespace

std::unique_ptr<MetricSink> make_jsonl_sink(const std::string& path, int64_t resume_step) {
  cut_rows(path, resume_step);
  return std::make_unique<JsonlSink>(path);
}

}  // namespace polysketch
