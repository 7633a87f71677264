// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace polysketch {

/// A program started with its output going into two pipes, whose other ends are read here without
/// waiting. Its input is empty. It leads a process group of its own, so that what a terminal sends
/// to the foreground does not reach it, and is killed if this process dies, however that happens.
/// Not killed or waited for by the destructor, which closes the pipes.
class ChildProcess {
 public:
  /// command: path of the program (as execvp looks for it) and its words. environment: on top of
  /// this process's; an empty value removes the variable. Signals have the effect in the child that
  /// they had in this program when it started: one that was ignored then (nohup) stays ignored.
  /// Throws UserError: 66 if there is no such program, 77 if it may not be run, 74 if the system
  /// has no descriptor left, 71 if it has no process left.
  ChildProcess(const std::vector<std::string>& command,
               const std::map<std::string, std::string>& environment);
  ~ChildProcess();
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;

  pid_t id() const { return id_; }
  int out() const { return out_; }  ///< -1: closed
  int err() const { return err_; }
  void close_out();
  void close_err();
  /// To the process alone, or with all that belong to its group. Not after it has been waited for.
  void send(int signal) const;
  void send_to_group(int signal) const;

 private:
  pid_t id_ = -1;
  int out_ = -1, err_ = -1;
};

/// Makes orphans of this process's children its own children from now on, so that kill_children can
/// find them.
void adopt_orphans();

/// Kills and waits for every child of this process, those that it adopted among them, until there
/// is none. Only where the kernel lists children
/// (/proc/PID/task/*/children); elsewhere nothing happens. How many there were.
size_t kill_children();

}  // namespace polysketch
