// SPDX-License-Identifier: Apache-2.0
#include "launch/reserved_port.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace {

/// The port, or 0.
int64_t bind_any(int socket, int family) {
  const int on = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_storage address{};
  // all other bytes zero: any address, any port
  address.ss_family = static_cast<sa_family_t>(family);
  socklen_t size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (::bind(socket, reinterpret_cast<sockaddr*>(&address), size) != 0) return 0;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                  : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

}  // namespace

ReservedPort::ReservedPort() {
  // An IPv6 socket stands for both families where there is IPv6.
  int error = 0;
  for (const int family : {AF_INET6, AF_INET}) {
    socket_ = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    error = errno;
    if (socket_ < 0) continue;
    port_ = bind_any(socket_, family);
    if (port_ != 0) return;
    error = errno;
    ::close(socket_);
    socket_ = -1;
  }
  throw UserError(exit_code_of(error, ExitCode::distributed),
                  fmt::format("no free TCP port ({}): give one by --port", reason_of(error)));
}

ReservedPort::~ReservedPort() { ::close(socket_); }

}  // namespace polysketch
