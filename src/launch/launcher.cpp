// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>

#include "launch/processors.hpp"
#include "launch/rank_group.hpp"
#include "launch/reserved_port.hpp"
#include "launch/signal_inbox.hpp"
#include "support/build_info.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/stop_signal.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace {

using Clock = RankGroup::Clock;
using TimePoint = Clock::time_point;

Clock::duration to_duration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

/// Descriptors 0 to 2 must not become those of a pipe. What was closed swallows what is written,
/// for ranks go on whoever listens.
void fill_standard_descriptors() {
  int descriptor = 0;
  do descriptor = ::open("/dev/null", O_RDWR);
  while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor > STDERR_FILENO) ::close(descriptor);
}

void check(const LaunchOptions& options) {
  const auto fail = [](const std::string& text) { throw UserError(ExitCode::usage, text); };
  if (options.command.empty()) fail("nothing to launch: give the command of a rank behind --");
  if (options.node_rank >= options.nodes) {
    fail(fmt::format("--node-rank {}: want 0 to {} as --nnodes {}", options.node_rank,
                     options.nodes - 1, options.nodes));
  }
  if (options.nodes > 1 && options.port == 0)
    fail(
        "--nnodes: several machines need --port too, the same on all: the store's, free on rank "
        "0's machine");
  if (options.nodes > 1 &&
      (options.host == "localhost" || options.host == "::1" || options.host.starts_with("127."))) {
    fail(
        "--nnodes: several machines need --host too, the same on all: the address of rank 0's "
        "machine");
  }
}

class Launcher {
 public:
  explicit Launcher(const LaunchOptions& options)
      : options_(options),
        machine_(host_name()),
        screen_(options.nodes * options.local_world, options.document) {
    adopt_orphans();
    if (options.log_folder.empty()) return;
    try {
      polysketch::create_directories(options.log_folder);
    } catch (const UserError& error) {
      throw UserError(error.code(), fmt::format("--log-dir: {}", error.what()));
    }
    if (::access(options.log_folder.c_str(), W_OK) != 0)
      throw UserError(exit_code_of(errno, ExitCode::cannot_create),
                      fmt::format("--log-dir: {}: cannot write into the folder: {}",
                                  options.log_folder.string(), reason_of(errno)));
  }

  int run() {
    for (attempt_ = 0;; ++attempt_) {
      const GroupEnd end = run_group();
      if (killed_by_ != 0) return finish(128 + killed_by_);
      if (!end.culprit) {
        if (end.code == static_cast<int>(ExitCode::stopped))
          say("stopped on request; the same command goes on from there");
        return finish(end.code);
      }
      if (stop_signal_ != 0 || attempt_ >= options_.max_restarts ||
          !options_.restart_on.allows(*end.culprit)) {
        report_failure(*end.culprit);
        return finish(end.code);
      }
      const double pause =
          options_.restart_pause *
          std::min<double>(30, static_cast<double>(int64_t{1} << std::min<int64_t>(attempt_, 5)));
      say(fmt::format("restart {} of {} in {:.3g} s", attempt_ + 1, options_.max_restarts, pause));
      screen_.give_document_up();
      if (!wait_quietly(pause)) {
        say("stopped on request between two attempts; the same command goes on from the last "
            "checkpoint");
        return finish(static_cast<int>(ExitCode::stopped));
      }
    }
  }

 private:
  void say(const std::string& text) { screen_.add_message("[launch] " + text); }

  std::string name_of(const RankEnd& end) const {
    return fmt::format("rank {} (process {} on {})", end.rank, end.process, machine_);
  }

  std::map<std::string, std::string> common_variables(int64_t port, int64_t threads) const {
    std::map<std::string, std::string> variables{
        {"WORLD_SIZE", std::to_string(options_.nodes * options_.local_world)},
        {"LOCAL_WORLD_SIZE", std::to_string(options_.local_world)},
        {"GROUP_RANK", std::to_string(options_.node_rank)},
        {"MASTER_ADDR", options_.host},
        {"MASTER_PORT", std::to_string(port)},
        {"POLYSKETCH_ATTEMPT", std::to_string(attempt_)},
        // What another launcher around this one has set
        // would mislead the ranks.
        {"POLYSKETCH_STORE", ""},
        {"TORCHELASTIC_USE_AGENT_STORE", ""},
        {"TORCHELASTIC_RESTART_COUNT", ""}};
    if (threads > 0) variables["OMP_NUM_THREADS"] = std::to_string(threads);
    return variables;
  }

  GroupEnd run_group() {
    std::optional<ReservedPort> reserved;
    if (options_.port == 0) reserved.emplace();
    const int64_t port = options_.port != 0 ? options_.port : reserved->port();
    const char* threads_set = std::getenv("OMP_NUM_THREADS");
    const bool keep_threads = threads_set != nullptr && *threads_set != '\0';
    const int64_t threads =
        keep_threads ? 0 : threads_each(usable_processors(), options_.local_world);
    ending_others_ = false;
    deadline_.reset();
    const int64_t first = options_.node_rank * options_.local_world,
                  last = first + options_.local_world - 1;
    const std::string ranks =
        first == last ? fmt::format("rank {}", first) : fmt::format("ranks {} to {}", first, last);
    say(fmt::format("{} of {} on {}, meeting at {}:{}, OMP_NUM_THREADS={}", ranks,
                    options_.nodes * options_.local_world, machine_, options_.host, port,
                    keep_threads ? threads_set : std::to_string(threads)));
    RankGroup group(screen_, options_.log_folder, attempt_);
    std::map<std::string, std::string> variables = common_variables(port, threads);
    for (int64_t local = 0; local < options_.local_world; ++local) {
      variables["LOCAL_RANK"] = std::to_string(local);
      variables["RANK"] = std::to_string(first + local);
      group.start(first + local, options_.command, variables);
    }
    while (!group.finished()) {
      wait(&group);
      take_signals(&group);  // first: SIGCHLD of a rank that ends from now on wakes the next wait
      for (const RankEnd& end : group.collect_ended()) after(end, group);
      if (deadline_ && Clock::now() >= *deadline_) {
        deadline_.reset();
        for (const int64_t rank : group.running())
          say(fmt::format("rank {} has not ended in time: killed", rank));
        group.kill_all();
      }
    }
    return judge(group.ends());
  }

  /// What one rank's end means to the others.
  void after(const RankEnd& end, RankGroup& group) {
    if (killed_by_ != 0) return;
    const bool others = !group.running().empty();
    if (end.failed() && !ending_others_) {
      ending_others_ = true;
      say(name_of(end) + " " + describe(end) + (others ? "; ending the others" : ""));
      if (others) end_within(options_.grace);
      group.send(SIGTERM);
    } else if (end.shell_code() == static_cast<int>(ExitCode::stopped) && others && !deadline_) {
      end_within(options_.stop_grace);  // asked by somebody else; all of them agree on the step
    }
  }

  void end_within(double seconds) {
    const TimePoint then = Clock::now() + to_duration(seconds);
    deadline_ = deadline_ ? std::min(*deadline_, then) : then;
  }

  /// The first signal is passed on, the second kills. group: none between two attempts.
  void take_signals(RankGroup* group) {
    while (const int number = inbox_.take()) {
      const bool second = insisted_ && insists(number);
      insisted_ = insisted_ || insists(number);
      if (stop_signal_ == 0) {
        stop_signal_ = number;
        screen_.never_wait();
        if (group == nullptr || ending_others_) continue;
        const int passed_on = number == SIGHUP ? SIGTERM : number;
        say(fmt::format(
            "{} passed on to the ranks{}, which have {:.3g} s to save and end; a second signal "
            "kills them",
            signal_name(number), passed_on == number ? "" : " as " + signal_name(passed_on),
            options_.stop_grace));
        group->send(passed_on);
        end_within(options_.stop_grace);
      } else if (!second) {
        continue;  // one request that came in two ways, or again by itself
      } else if (killed_by_ == 0) {
        killed_by_ = number;
        say(fmt::format("{}, the second signal: all ranks are killed", signal_name(number)));
        if (group != nullptr) group->kill_all();
      } else {
        // a process that even SIGKILL does not end; the others die with this one
        ::_exit(128 + number);
      }
    }
  }

  /// Waits for something to happen, and moves output.
  void wait(RankGroup* group, std::optional<TimePoint> until = std::nullopt) {
    std::vector<pollfd> descriptors{{inbox_.descriptor(), POLLIN, 0}};
    screen_.add_descriptors(descriptors);
    if (group != nullptr) {
      group->add_descriptors(descriptors);
      for (const auto& time : {deadline_, group->next_deadline()}) {
        if (time) until = until ? std::min(*until, *time) : *time;
      }
    }
    int milliseconds = -1;
    if (until) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - Clock::now()).count();
      milliseconds = static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
    }
    ::poll(descriptors.data(), descriptors.size(), milliseconds);  // EINTR is as good as nothing
    if (group != nullptr) group->read_output();
    screen_.write_some();
  }

  /// False if a signal came.
  bool wait_quietly(double seconds) {
    const TimePoint until = Clock::now() + to_duration(seconds);
    while (stop_signal_ == 0 && Clock::now() < until) {
      wait(nullptr, until);
      take_signals(nullptr);
    }
    return stop_signal_ == 0;
  }

  void report_failure(const RankEnd& end) {
    std::string text = fmt::format("{} {}", name_of(end), describe(end));
    if (stop_signal_ != 0) {
      text += ", while it was to stop";
    } else if (options_.max_restarts > 0 && options_.restart_on.allows(end)) {
      text += fmt::format(", after {} of {} restarts", attempt_, options_.max_restarts);
    } else if (options_.max_restarts > 0) {
      text += ", which a restart does not mend (--restart-on)";
    }
    text += options_.log_folder.empty()
                ? fmt::format(": see the last lines of [{}]", end.rank)
                : fmt::format(": see {}", rank_log_path(options_.log_folder, end.rank).string());
    screen_.add_message(fmt::format("ERROR {}: {}", end.shell_code(), text));
  }

  /// Lets the rest of the output out. Without a limit, as any program waits for its reader; not
  /// long once somebody wants an end.
  int finish(int code) {
    const TimePoint until = Clock::now() + std::chrono::seconds(killed_by_ != 0 ? 0 : 5);
    screen_.end_document();
    screen_.write_some();
    while (!screen_.empty() && (stop_signal_ == 0 || Clock::now() < until)) {
      wait(nullptr, stop_signal_ == 0 ? std::nullopt : std::optional(until));
      take_signals(nullptr);
    }
    return code == 0 && screen_.lost_output() ? static_cast<int>(ExitCode::io) : code;
  }

  const LaunchOptions& options_;
  std::string machine_;
  SignalInbox inbox_;
  Screen screen_;
  int64_t attempt_ = 0;
  int stop_signal_ = 0, killed_by_ = 0;
  bool insisted_ = false;              ///< a signal came whose second one kills
  bool ending_others_ = false;         ///< a rank has failed
  std::optional<TimePoint> deadline_;  ///< who has not ended by then is killed
};

}  // namespace

int launch(const LaunchOptions& options) {
  check(options);
  fill_standard_descriptors();
  return Launcher(options).run();
}

}  // namespace polysketch
