// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace polysketch {

/// SIGTERM, SIGINT and SIGUSR1 ask for a stop at the next step boundary; a second one ends the process at once with 128 + n.
/// The handler does nothing but set a flag, so it may be polled anywhere: in the step loop, in accumulation, in validation.
class StopSignal {
 public:
  static void install();
  static bool requested();
  static int number();  ///< which signal, 0 if none
  static void reset_for_test();
};

}  // namespace polysketch
