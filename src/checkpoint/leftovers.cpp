// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/leftovers.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <mutex>
#include <set>
#include <string_view>
#include <system_error>

#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view trash_prefix = ".trash-";
constexpr std::string_view temporary_mark = ".tmp-";

std::mutex live_mutex;
std::set<fs::path> live;

std::string unique_suffix() {
  static std::atomic<int64_t> count{0};
  return fmt::format("{}-{}", ::getpid(), count++);
}

bool digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// "<pid>-<n>"
bool is_unique_suffix(std::string_view text) {
  const size_t dash = text.find('-');
  return dash != std::string_view::npos && digits(text.substr(0, dash)) &&
         digits(text.substr(dash + 1));
}

bool is_own_temporary(std::string_view name) {
  const size_t mark = name.find(temporary_mark);
  return mark != std::string_view::npos && step_of_name(std::string(name.substr(0, mark))) &&
         is_unique_suffix(name.substr(mark + temporary_mark.size()));
}

bool is_own_trash(std::string_view name) {
  if (name.substr(0, trash_prefix.size()) != trash_prefix) return false;
  name.remove_prefix(trash_prefix.size());
  const size_t dash = name.find('-', std::string_view("step-").size());
  return dash != std::string_view::npos && step_of_name(std::string(name.substr(0, dash))) &&
         is_unique_suffix(name.substr(dash + 1));
}

}  // namespace

std::string checkpoint_name(int64_t step) { return fmt::format("step-{:08d}", step); }

std::optional<int64_t> step_of_name(const std::string& name) {
  constexpr std::string_view prefix = "step-";
  if (name.compare(0, prefix.size(), prefix) != 0 ||
      !digits(std::string_view(name).substr(prefix.size())))
    return std::nullopt;
  int64_t step = 0;
  const auto parsed = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
  if (parsed.ec != std::errc{} || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

std::string temporary_name(int64_t step) {
  return fmt::format("{}{}{}", checkpoint_name(step), temporary_mark, unique_suffix());
}
std::string trash_name(int64_t step) {
  return fmt::format("{}{}-{}", trash_prefix, checkpoint_name(step), unique_suffix());
}

void register_live_save(const fs::path& temporary) {
  const std::lock_guard guard(live_mutex);
  live.insert(temporary);
}

void unregister_live_save(const fs::path& temporary) {
  const std::lock_guard guard(live_mutex);
  live.erase(temporary);
}

void remove_leftovers(const fs::path& checkpoints) {
  std::error_code error;
  std::vector<fs::path> candidates;
  for (fs::directory_iterator at(checkpoints, error), end; !error && at != end; at.increment(error))
    candidates.push_back(at->path());
  std::sort(candidates.begin(), candidates.end());
  for (const fs::path& path : candidates) {
    const std::string name = path.filename().string();
    if (name.find(temporary_mark) == std::string::npos &&
        name.compare(0, trash_prefix.size(), trash_prefix) != 0)
      continue;
    {
      const std::lock_guard guard(live_mutex);
      if (live.count(path) > 0) continue;
    }
    if (!is_own_temporary(name) && !is_own_trash(name)) {
      log_warning(fmt::format("{}: left by another program, ignored; remove it if nobody needs it",
                              path.string()));
      continue;
    }
    fs::remove_all(path, error);
    if (error) {
      log_warning(fmt::format("{}: left by an interrupted save, cannot be removed: {}",
                              path.string(), error.message()));
      error.clear();
    } else {
      log_line(LogLevel::info, fmt::format("{}: left by an interrupted {}, removed", path.string(),
                                           is_own_trash(name) ? "deletion" : "save"));
    }
  }
}

void delete_checkpoint(const fs::path& checkpoints, const fs::path& victim, int64_t step) {
  const fs::path trash = checkpoints / trash_name(step);
  rename_durably(victim, trash);
  std::error_code error;
  fs::remove_all(trash, error);
  if (error) log_warning(fmt::format("{}: cannot be removed: {}", trash.string(), error.message()));
}

void delete_if_possible(const fs::path& checkpoints, const fs::path& victim, int64_t step) {
  try {
    delete_checkpoint(checkpoints, victim, step);
  } catch (const UserError& error) {
    log_warning(fmt::format("{}: an old checkpoint stays: {}", victim.string(), error.what()));
  }
}

}  // namespace polysketch
