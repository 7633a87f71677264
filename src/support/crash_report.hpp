// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace polysketch {

/// From here on a process that dies of SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGABRT first writes the
/// signal and the call stack of the thread to standard error, then dies of the same signal (core
/// dumps and exit statuses stay as they are). Lines read `binary(+offset)`: `addr2line -Cfe binary
/// offset` names them.
void install_crash_report();

}  // namespace polysketch
