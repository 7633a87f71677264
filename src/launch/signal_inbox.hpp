// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <signal.h>

namespace polysketch {

/// The signals that ask for an end (stop_signals(), but for those that were ignored: nohup) and
/// SIGCHLD become readable on a descriptor instead of interrupting anything. SIGPIPE is ignored
/// meanwhile. The destructor brings
/// back what was before.
class SignalInbox {
 public:
  SignalInbox();
  ~SignalInbox();
  SignalInbox(const SignalInbox&) = delete;
  SignalInbox& operator=(const SignalInbox&) = delete;

  int descriptor() const { return descriptor_; }
  /// The next signal that asks for something; 0: no more. SIGCHLD only wakes up, so it is not told.
  int take();

 private:
  sigset_t before_{};
  struct sigaction pipe_before_ {};
  int descriptor_ = -1;
};

}  // namespace polysketch
