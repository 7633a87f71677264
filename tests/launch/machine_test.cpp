// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "helpers/test_helpers.hpp"
#include "launch/processors.hpp"
#include "launch/reserved_port.hpp"

namespace polysketch {
namespace {

/// What a server does; as c10d's store if `reuse`.
bool can_listen(int64_t port, bool reuse) {
  const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = reuse ? 1 : 0;
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  const bool listens = bind(server, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
                       listen(server, 1) == 0;
  close(server);
  return listens;
}

TEST(ReservedPort, IsThereForWhoAsksForIt) {
  const ReservedPort one, two;
  EXPECT_NE(one.port(), two.port());
  for (const ReservedPort* port : {&one, &two}) {
    EXPECT_GT(port->port(), 0);
    EXPECT_LT(port->port(), 65536);
    EXPECT_TRUE(can_listen(port->port(), true));
    EXPECT_FALSE(can_listen(port->port(), false)) << "it was not held";
  }
}

TEST(ReservedPort, IsGivenBack) {
  int64_t port = 0;
  {
    const ReservedPort held;
    port = held.port();
  }
  EXPECT_TRUE(can_listen(port, false));
}

TEST(Processors, AreThoseOfTheAffinityMask) {
  std::thread([] {
    const int64_t before = usable_processors();
    EXPECT_GE(before, 1);
    cpu_set_t set;
    ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    EXPECT_LE(before, CPU_COUNT(&set));
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
    EXPECT_EQ(usable_processors(), 1);
  }).join();
}

TEST(Processors, AreThoseOfTheQuota) {
  const test::TemporaryFolder folder;
  const std::string file = (folder / "cpu.max").string();
  const int64_t allowed = usable_processors("/nothing");
  EXPECT_EQ(usable_processors(file), allowed) << "no such file";
  for (const char* none : {"max 100000", "", "0 100000", "100000 0", "-1 100000", "x y"}) {
    test::write_text(file, none);
    EXPECT_EQ(usable_processors(file), allowed) << none;
  }
  for (const auto& [quota, processors] :
       {std::pair("100000 100000\n", 1), std::pair("1000 100000\n", 1),
        std::pair("100001 100000\n", 2)}) {
    test::write_text(file, quota);
    EXPECT_EQ(usable_processors(file), std::min<int64_t>(processors, allowed)) << quota;
  }
  test::write_text(file, "9223372036854775807 100000\n");
  EXPECT_EQ(usable_processors(file), allowed);
}

TEST(Processors, AreShared) {
  EXPECT_EQ(threads_each(64, 8), 8);
  EXPECT_EQ(threads_each(64, 6), 10);
  EXPECT_EQ(threads_each(2, 3), 1);
  EXPECT_EQ(threads_each(1, 1), 1);
}

}  // namespace
}  // namespace polysketch
