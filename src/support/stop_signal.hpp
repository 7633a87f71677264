// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace polysketch {

/// SIGTERM, SIGINT and SIGUSR1 ask for a stop at the next step boundary; a second one ends the
/// process at once with 128 + n. The handler does nothing but set a flag, so it may be polled
/// anywhere: in the step loop, in accumulation, in validation.
///
/// No thread that computes is ever interrupted: oneDNN's fp32 product for AVX-512 uses the stack
/// pointer as a general register, and the frame of a signal then lands in the heap. So the calling
/// thread blocks the three signals, and so do all threads that it starts later; a thread of its own
/// takes them.
class StopSignal {
 public:
  /// Once, in the main thread, before any thread that computes exists. Later calls do nothing.
  static void install();
  static bool requested();
  static int number();  ///< which signal, 0 if none
  static void reset_for_test();
};

}  // namespace polysketch
