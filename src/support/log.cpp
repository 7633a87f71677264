// SPDX-License-Identifier: Apache-2.0
#include "support/log.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace polysketch {
namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

const char* prefix(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug: ";
    case LogLevel::info:
      return "";
    case LogLevel::warning:
      return "warning: ";
    case LogLevel::error:
      return "error: ";
  }
  return "";
}

constexpr size_t kBacklog = 1000;

struct Line {
  spdlog::log_clock::time_point time;
  LogLevel level;
  std::string text;
};

struct Log {
  Log() : console("console", std::make_shared<spdlog::sinks::stderr_sink_st>()) {
    console.set_pattern("%v");
    console.set_level(spdlog::level::trace);
    console.set_error_handler([](const std::string&) {});  // a closed terminal must not end a run
  }

  // Under `mutex`.
  void to_console(LogLevel level, const std::string& text) {
    if (before) before();
    console.log(to_spdlog(level), spdlog::string_view_t(prefix(level) + text));
    console.flush();
    if (after) after();
  }

  void to_file(LogLevel level, const std::string& text) {
    if (!file) {
      // Nothing before a file is attached is lost to it, but a program that never attaches one must
      // not fill its memory.
      if (!ever_attached && backlog.size() < kBacklog)
        backlog.push_back({spdlog::log_clock::now(), level, text});
      return;
    }
    file->log(to_spdlog(level), spdlog::string_view_t(text));
    file->flush();
    if (file_failure.empty()) return;
    file.reset();
    to_console(LogLevel::warning, "log file given up: " + file_failure);
  }

  std::mutex mutex;
  spdlog::logger console;
  std::unique_ptr<spdlog::logger> file;
  std::string file_failure;
  std::vector<Line> backlog;  // what was said before the first file
  bool ever_attached = false;
  spdlog::level::level_enum lowest = spdlog::level::info;
  std::function<void()> before, after;
};

// Never destroyed: threads may still log while the process ends.
Log& the_log() {
  static Log* const log = new Log;
  return *log;
}

}  // namespace

void log_line(LogLevel level, const std::string& text) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  if (to_spdlog(level) < log.lowest) return;
  log.to_console(level, text);
  log.to_file(level, text);
}

void attach_log_file(const std::filesystem::path& path) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.file.reset();
  log.file_failure.clear();
  try {
    log.file = std::make_unique<spdlog::logger>(
        "file", std::make_shared<spdlog::sinks::basic_file_sink_st>(path.string()));
  } catch (const spdlog::spdlog_ex& error) {
    log.to_console(LogLevel::warning, std::string("log file not written: ") + error.what());
    return;
  }
  log.file->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
  log.file->set_level(spdlog::level::trace);
  log.file->set_error_handler([&log](const std::string& message) { log.file_failure = message; });
  log.ever_attached = true;
  for (const Line& line : std::exchange(log.backlog, {})) {
    log.file->log(line.time, spdlog::source_loc{}, to_spdlog(line.level),
                  spdlog::string_view_t(line.text));
  }
  log.file->flush();
}

void set_log_level(LogLevel level) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.lowest = to_spdlog(level);
}

void set_log_hooks(std::function<void()> before, std::function<void()> after) {
  Log& log = the_log();
  const std::lock_guard lock(log.mutex);
  log.before = std::move(before);
  log.after = std::move(after);
}

}  // namespace polysketch
