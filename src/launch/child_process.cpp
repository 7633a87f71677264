// SPDX-License-Identifier: Apache-2.0
#include "launch/child_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace {

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      throw UserError(ExitCode::io, fmt::format("no pipe for a process: {}", reason_of(errno)));
    }
    read = ends[0];
    write = ends[1];
  }
  ~Pipe() {
    close(read);
    close(write);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  static void close(int& end) {
    if (end >= 0) ::close(end);
    end = -1;
  }
};

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& changes) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!changes.contains(text.substr(0, text.find('=')))) all.push_back(text);
  }
  for (const auto& [name, value] : changes) {
    if (!value.empty()) all.push_back(name + "=" + value);
  }
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> all;
  for (std::string& word : words) all.push_back(word.data());
  all.push_back(nullptr);
  return all;
}

/// In the child: only what is allowed between fork and exec.
[[noreturn]] void become(char** command, char** environment, pid_t parent, const Pipe& out,
                         const Pipe& err, int failure) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // it died before the line above
  // What this program itself ignores; handlers do not outlive exec.
  for (const int number : {SIGPIPE, SIGXFSZ}) ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = ::open("/dev/null", O_RDONLY);
  if (null > 0) ::dup2(null, STDIN_FILENO);
  ::dup2(out.write, STDOUT_FILENO);
  ::dup2(err.write, STDERR_FILENO);
  if (null > STDERR_FILENO) ::close(null);
  ::execvpe(command[0], command, environment);
  const int number = errno;
  (void)!::write(failure, &number, sizeof number);
  ::_exit(127);
}

/// errno of the child's exec, 0 if it succeeded and thereby closed the pipe.
int read_failure(int descriptor) {
  int number = 0;
  ssize_t got = 0;
  while ((got = ::read(descriptor, &number, sizeof number)) < 0 && errno == EINTR) continue;
  return got == sizeof number ? number : 0;
}

ExitCode code_of(int number) {
  return number == ENOEXEC ? ExitCode::permission : exit_code_of_reading(number);
}

std::vector<pid_t> children() {
  std::vector<pid_t> all;
  std::error_code error;
  std::filesystem::directory_iterator task("/proc/self/task", error);
  for (const std::filesystem::directory_iterator end; !error && task != end;
       task.increment(error)) {
    std::ifstream file(task->path() / "children");
    for (pid_t child = 0; file >> child;) all.push_back(child);
  }
  return all;
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command,
                           const std::map<std::string, std::string>& environment) {
  std::vector<std::string> words = command, variables = merged_environment(environment);
  const std::vector<char*> word_pointers = pointers(words), variable_pointers = pointers(variables);
  Pipe out, err, failure;
  const pid_t parent = ::getpid();
  id_ = ::fork();
  if (id_ == 0)
    become(const_cast<char**>(word_pointers.data()), const_cast<char**>(variable_pointers.data()),
           parent, out, err, failure.write);
  if (id_ < 0) {
    throw UserError(
        exit_code_of(errno, ExitCode::io),
        fmt::format("cannot start a process ({}): raise the limit of processes or of memory",
                    std::strerror(errno)));
  }
  ::setpgid(id_, id_);  // whoever of the two comes first
  Pipe::close(failure.write);
  if (const int number = read_failure(failure.read); number != 0) {
    while (::waitpid(id_, nullptr, 0) < 0 && errno == EINTR) continue;
    throw UserError(code_of(number),
                    fmt::format("{}: cannot be started: {}", command[0], reason_of(number)));
  }
  out_ = std::exchange(out.read, -1);
  err_ = std::exchange(err.read, -1);
  for (const int end : {out_, err_}) ::fcntl(end, F_SETFL, O_NONBLOCK);
}

ChildProcess::~ChildProcess() {
  close_out();
  close_err();
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : id_(std::exchange(other.id_, -1)),
      out_(std::exchange(other.out_, -1)),
      err_(std::exchange(other.err_, -1)) {}

void ChildProcess::close_out() { Pipe::close(out_); }
void ChildProcess::close_err() { Pipe::close(err_); }
void ChildProcess::send(int signal) const { ::kill(id_, signal); }
void ChildProcess::send_to_group(int signal) const { ::kill(-id_, signal); }

void adopt_orphans() { ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

size_t kill_children() {
  size_t count = 0;
  // Children of the killed are adopted in turn.
  for (std::vector<pid_t> all = children(); !all.empty(); all = children()) {
    for (const pid_t child : all) {
      ::kill(child, SIGKILL);
      while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) continue;
      ++count;
    }
  }
  return count;
}

}  // namespace polysketch
