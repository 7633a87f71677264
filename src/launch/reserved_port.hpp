// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace polysketch {

/// A TCP port of this machine that was free, kept from being handed to anybody who asks for any
/// port. A program that asks for this one with SO_REUSEADDR, as c10d's store does, gets it: nothing
/// listens here.
class ReservedPort {
 public:
  /// Throws UserError 76 if the machine has no port left.
  ReservedPort();
  ~ReservedPort();
  ReservedPort(const ReservedPort&) = delete;
  ReservedPort& operator=(const ReservedPort&) = delete;
  int64_t port() const { return port_; }

 private:
  int socket_ = -1;
  int64_t port_ = 0;
};

}  // namespace polysketch
