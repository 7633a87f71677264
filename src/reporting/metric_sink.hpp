// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace polysketch {

/// One row of metrics.jsonl. `event`: "start", "step", "diagnostics", "validation", "checkpoint",
/// "error", "stop", "end". `fields` are written in their order after event, step, tokens and time;
/// numbers stay numbers, a non-finite number becomes null.
struct MetricRecord {
  std::string event;
  int64_t step = 0;
  int64_t tokens = 0;  ///< consumed so far, all processes
  nlohmann::ordered_json fields = nlohmann::ordered_json::object();
};

/// Something that wants to know what happened. A sink that cannot write warns once and is silent
/// from then on: training goes on.
class MetricSink {
 public:
  virtual ~MetricSink() = default;
  virtual void record(const MetricRecord& record) = 0;
  virtual void flush() {}
  /// Where the run folder is now. A file that was removed, or is not in that folder yet, is written
  /// anew with all that it held.
  virtual void stay_in(const std::string& /*run_folder*/) {}
};

/// `metrics.jsonl`, appended. On resume, rows of steps after `resume_step` (from a run that died
/// before saving) are cut off first, so that every step stands in the file once.
std::unique_ptr<MetricSink> make_jsonl_sink(const std::string& path, int64_t resume_step);

/// A TensorBoard event file in `directory`: one scalar per numeric field of step, diagnostics and
/// validation records, tag `<event>/<field>`, and of the objects in a list of them, tag
/// `<event>/<list>/<position>/<field>`.
std::unique_ptr<MetricSink> make_tensorboard_sink(const std::string& directory);

/// The console: one readable line every `every` steps, one for each validation, diagnostics,
/// checkpoint and stop, after the first few steps a forecast of the whole run if it takes more than
/// a minute, all under a progress bar with ETA if standard error is a terminal and
/// `progress` is set.
struct ConsoleOptions {
  int64_t total_steps = 0;
  int64_t start_step = 0;
  int64_t every = 10;
  bool progress = true;
};
std::unique_ptr<MetricSink> make_console_sink(const ConsoleOptions& options);

/// What a user can do with a finished run, as one line of commands.
std::string next_steps(const std::string& run_folder);

}  // namespace polysketch
