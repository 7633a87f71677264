// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace polysketch {

/// Lines for people. Standard error always; `log.txt` of the run folder too once a file is
/// attached. Standard output is left to the figures a command prints. A line never mixes with a
/// progress bar: the bar registers itself and is redrawn below the line.
enum class LogLevel { debug, info, warning, error };

void log_line(LogLevel level, const std::string& text);
inline void log_info(const std::string& text) { log_line(LogLevel::info, text); }
inline void log_warning(const std::string& text) { log_line(LogLevel::warning, text); }
/// A warning that all processes of a run have in common (about their files, their settings): those
/// that are told to be quiet, which all but the first are, leave it out.
inline void log_common_warning(const std::string& text) { log_info("warning: " + text); }

/// Starts copying every line, with a time stamp, into the file (appended); the first file also gets
/// what was said before. Failure to write warns once and goes on.
void attach_log_file(const std::filesystem::path& path);
void set_log_level(LogLevel level);

/// Called before and after each line is written to standard error, so that a progress bar can step
/// aside and come back. Both run under the log's lock: they must not log themselves, nor wait for a
/// thread that logs. Two empty functions unregister; when this returns, the earlier pair is no
/// longer running.
void set_log_hooks(std::function<void()> before, std::function<void()> after);

}  // namespace polysketch
