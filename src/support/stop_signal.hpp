// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace polysketch {

/// The signals that ask a program to end: all whose usual effect is that, but for those of a defect
/// (SIGSEGV and its like), SIGKILL, which asks nobody, and SIGPIPE and SIGXFSZ, which are errors of
/// one write. Ascending.
const std::vector<int>& stop_signals();

/// The one among them that somebody sends on purpose and means by it what a second one means: now.
/// Others come twice by themselves: SIGHUP from the shell and from the kernel when a terminal goes
/// away, SIGXCPU every second, SIGALRM and its like from a timer.
bool insists(int number);

/// "SIGTERM", "SIGRTMIN+3": as people type it.
std::string signal_name(int number);

/// What a signal that asks for an end does to this process.
///
/// No thread that computes is ever interrupted: oneDNN's fp32 product for AVX-512 uses the stack
/// pointer as a general register, and the frame of a signal then lands in the heap. So the calling
/// thread blocks the signals, and so do all threads that it starts later; a thread of its own takes
/// them. A signal that was ignored when the program started (nohup), or that somebody else has a
/// use for already, stays as it is.
class StopSignal {
 public:
  /// The first one asks for a stop at the next good moment: requested() may be polled anywhere, in
  /// the step loop, in accumulation, in validation. A second one that insists ends the process at
  /// once with 128 + n. Under a launcher, what that passes on is no second one: it kills when it
  /// means to. Once, in the main thread, before any thread that computes exists. Later calls do
  /// nothing.
  static void install();

  /// For what has nothing to save: the first one ends the process, as it would without this, but
  /// the temporary files of DurableFile go too.
  static void install_to_end();

  static bool requested();
  static int number();  ///< which signal, 0 if none
  static void reset_for_test();
};

}  // namespace polysketch
