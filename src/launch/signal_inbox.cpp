// SPDX-License-Identifier: Apache-2.0
#include "launch/signal_inbox.hpp"

#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "support/error.hpp"
#include "support/stop_signal.hpp"

namespace polysketch {

SignalInbox::SignalInbox() {
  sigset_t asked;
  ::sigemptyset(&asked);
  ::sigaddset(&asked, SIGCHLD);
  for (const int number : stop_signals()) {
    struct sigaction now {};
    if (::sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_DFL)
      ::sigaddset(&asked, number);
  }
  descriptor_ = ::signalfd(-1, &asked, SFD_NONBLOCK | SFD_CLOEXEC);
  if (descriptor_ < 0)
    throw UserError(ExitCode::io,
                    "no descriptor for signals: raise the limit of open files (ulimit -n)");
  ::pthread_sigmask(SIG_BLOCK, &asked, &before_);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &pipe_before_);
}

SignalInbox::~SignalInbox() {
  while (take() != 0) continue;  // what came meanwhile must not strike late
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  ::sigaction(SIGPIPE, &pipe_before_, nullptr);
  ::close(descriptor_);
}

int SignalInbox::take() {
  for (;;) {
    signalfd_siginfo information{};
    const ssize_t got = ::read(descriptor_, &information, sizeof information);
    if (got < 0 && errno == EINTR) continue;
    if (got != sizeof information) return 0;
    if (information.ssi_signo != SIGCHLD) return static_cast<int>(information.ssi_signo);
  }
}

}  // namespace polysketch
