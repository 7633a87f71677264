// SPDX-License-Identifier: Apache-2.0
#include "launch/rank_group.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace {

constexpr auto kDrainTime = std::chrono::seconds(1);

/// Appends to a file until that fails.
class RankLog {
 public:
  explicit RankLog(const std::filesystem::path& path) : path_(path) {
    // The opening of a pipe would wait until somebody reads it.
    descriptor_ =
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0644);
    if (descriptor_ < 0) {
      throw UserError(
          exit_code_of(errno, ExitCode::cannot_create),
          fmt::format("--log-dir: cannot open {}: {}", path.string(), reason_of(errno)));
    }
    ::fcntl(descriptor_, F_SETFL, O_WRONLY | O_APPEND);
  }
  ~RankLog() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  RankLog(const RankLog&) = delete;
  RankLog& operator=(const RankLog&) = delete;

  /// What went wrong, once.
  std::string write(std::string_view bytes) {
    while (descriptor_ >= 0 && !bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
      if (written >= 0 || errno == EINTR) continue;
      const int number = errno;
      ::close(descriptor_);
      descriptor_ = -1;
      return fmt::format("[launch] warning: {} is given up: {}", path_.string(),
                         std::strerror(number));
    }
    return "";
  }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace

std::filesystem::path rank_log_path(const std::filesystem::path& folder, int64_t rank) {
  return folder / fmt::format("rank-{}.log", rank);
}

struct RankGroup::Rank {
  Rank(int64_t number_, ChildProcess process_) : number(number_), process(std::move(process_)) {}
  int64_t number;
  ChildProcess process;
  std::unique_ptr<RankLog> log;
  Clock::time_point started = Clock::now();
  std::optional<Clock::time_point> drained_by;  ///< set when it has ended
  std::set<int> sent;
  std::array<LineCutter, 2> lines;              ///< of standard output, of standard error
  std::array<int64_t, 2> read_since_end{0, 0};  ///< bytes

  int descriptor(bool error) const { return error ? process.err() : process.out(); }
};

RankGroup::RankGroup(Screen& screen, std::filesystem::path log_folder, int64_t attempt)
    : screen_(screen), log_folder_(std::move(log_folder)), attempt_(attempt) {}

RankGroup::~RankGroup() {
  for (const auto& rank : ranks_) {
    if (rank->drained_by) continue;
    rank->process.send_to_group(SIGKILL);
    while (::waitpid(rank->process.id(), nullptr, 0) < 0 && errno == EINTR) continue;
  }
  kill_children();
}

void RankGroup::start(int64_t number, const std::vector<std::string>& command,
                      const std::map<std::string, std::string>& variables) {
  std::unique_ptr<RankLog> log;
  if (!log_folder_.empty()) log = std::make_unique<RankLog>(rank_log_path(log_folder_, number));
  auto rank = std::make_unique<Rank>(number, ChildProcess(command, variables));
  rank->log = std::move(log);
  if (rank->log) {
    const std::string problem =
        rank->log->write(fmt::format("== attempt {}, process {}, {:%Y-%m-%d %H:%M:%S}\n", attempt_,
                                     rank->process.id(), fmt::localtime(std::time(nullptr))));
    if (!problem.empty()) screen_.add_message(problem);
  }
  ranks_.push_back(std::move(rank));
}

std::vector<int64_t> RankGroup::running() const {
  std::vector<int64_t> all;
  for (const auto& rank : ranks_) {
    if (!rank->drained_by) all.push_back(rank->number);
  }
  return all;
}

void RankGroup::send(int signal) {
  for (const auto& rank : ranks_) {
    if (rank->drained_by) continue;
    rank->sent.insert(signal);
    rank->process.send(signal);
  }
}

void RankGroup::kill_all() {
  for (const auto& rank : ranks_) {
    if (rank->drained_by) continue;
    rank->sent.insert(SIGKILL);
    rank->process.send_to_group(SIGKILL);
  }
}

std::vector<RankEnd> RankGroup::collect_ended() {
  std::vector<RankEnd> now;
  for (;;) {
    // Not yet reaped, so that the number of its group cannot be anybody else's.
    siginfo_t information{};
    if (::waitid(P_ALL, 0, &information, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        information.si_pid == 0)
      break;
    const auto found = std::find_if(ranks_.begin(), ranks_.end(), [&](const auto& rank) {
      return rank->process.id() == information.si_pid && !rank->drained_by;
    });
    if (found != ranks_.end()) {
      Rank& rank = **found;
      rank.process.send_to_group(SIGKILL);
      rank.drained_by = Clock::now() + kDrainTime;
      RankEnd end;
      end.rank = rank.number;
      end.process = rank.process.id();
      (information.si_code == CLD_EXITED ? end.code : end.signal) = information.si_status;
      end.sent = rank.sent;
      end.seconds = std::chrono::duration<double>(Clock::now() - rank.started).count();
      now.push_back(end);
    }
    while (::waitpid(information.si_pid, nullptr, 0) < 0 && errno == EINTR) continue;
  }
  ends_.insert(ends_.end(), now.begin(), now.end());
  return now;
}

void RankGroup::add_descriptors(std::vector<pollfd>& descriptors) const {
  for (const auto& rank : ranks_) {
    for (const bool error : {false, true}) {
      if (rank->descriptor(error) >= 0 && !screen_.full(error))
        descriptors.push_back({rank->descriptor(error), POLLIN, 0});
    }
  }
}

void RankGroup::read_output() {
  for (const auto& rank : ranks_) {
    for (const bool error : {false, true}) read(*rank, error);
  }
}

void RankGroup::read(Rank& rank, bool error) {
  if (rank.descriptor(error) < 0 || screen_.full(error)) return;
  const auto sink = [&](std::string_view line) { screen_.add_line(rank.number, error, line); };
  static std::array<char, 65536> buffer;
  ssize_t got = 0;
  while ((got = ::read(rank.descriptor(error), buffer.data(), buffer.size())) < 0 && errno == EINTR)
    continue;
  if (got > 0) {
    const std::string_view bytes(buffer.data(), static_cast<size_t>(got));
    if (screen_.is_document(rank.number, error)) {
      screen_.add_to_document(bytes);
    } else {
      rank.lines[error].feed(bytes, sink);
    }
    const std::string problem = rank.log ? rank.log->write(bytes) : "";
    if (!problem.empty()) screen_.add_message(problem);
    if (rank.drained_by) rank.read_since_end[error] += got;
  }
  // After its end others may hold the pipe: they are not waited for, and what comes when the pipe
  // has been emptied once is not its output.
  const bool emptied = rank.read_since_end[error] >= ::fcntl(rank.descriptor(error), F_GETPIPE_SZ);
  const bool all_read =
      rank.drained_by && (emptied || (got < 0 && Clock::now() >= *rank.drained_by));
  if ((got > 0 || (got < 0 && errno == EAGAIN)) && !all_read) return;
  rank.lines[error].flush(sink);
  error ? rank.process.close_err() : rank.process.close_out();
}

std::optional<RankGroup::Clock::time_point> RankGroup::next_deadline() const {
  std::optional<Clock::time_point> first;
  for (const auto& rank : ranks_) {
    for (const bool error : {false, true}) {
      // A full screen is waited for by its own descriptor.
      if (!rank->drained_by || rank->descriptor(error) < 0 || screen_.full(error)) continue;
      first = first ? std::min(*first, *rank->drained_by) : *rank->drained_by;
    }
  }
  return first;
}

bool RankGroup::finished() const {
  return std::all_of(ranks_.begin(), ranks_.end(), [](const auto& rank) {
    return rank->drained_by && rank->descriptor(false) < 0 && rank->descriptor(true) < 0;
  });
}

}  // namespace polysketch
