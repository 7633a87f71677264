// SPDX-License-Identifier: Apache-2.0
#include "launch/rank_end.hpp"

#include <gmock/gmock.h>
#include <signal.h>

#include <algorithm>
#include <vector>

#include "support/error.hpp"

namespace polysketch {
namespace {

RankEnd returned(int64_t rank, int code, std::set<int> sent = {}) {
  RankEnd end;
  end.rank = rank;
  end.code = code;
  end.sent = std::move(sent);
  return end;
}

RankEnd killed(int64_t rank, int signal, std::set<int> sent = {}) {
  RankEnd end;
  end.rank = rank;
  end.signal = signal;
  end.sent = std::move(sent);
  return end;
}

struct Case {
  const char* name;
  std::vector<RankEnd> ends;
  int code;
  int64_t culprit;  // -1: nobody
};

TEST(Judge, FindsWhoFailedFirstByItsOwnFault) {
  const std::vector<Case> cases = {
      {"all done", {returned(0, 0), returned(1, 0)}, 0, -1},
      {"all stopped", {returned(0, 75, {SIGTERM}), returned(1, 75, {SIGTERM})}, 75, -1},
      {"stopped when some were done",
       {returned(0, 0, {SIGTERM}), returned(1, 75, {SIGTERM})},
       75,
       -1},
      {"stopped by others than the launcher", {returned(0, 75), returned(1, 75)}, 75, -1},
      {"one fails, the others are ended",
       {returned(1, 78), killed(0, SIGTERM, {SIGTERM}), returned(2, 75, {SIGTERM})},
       78,
       1},
      {"the first of two", {returned(2, 70), returned(1, 78)}, 70, 2},
      {"a peer's loss is seen before the peer's end",
       {returned(0, 76), returned(2, 76), killed(1, SIGKILL, {SIGTERM})},
       137,
       1},
      {"the same with a code", {returned(0, 76), returned(1, 80, {SIGTERM})}, 80, 1},
      {"nobody but lost peers", {returned(1, 76), returned(0, 76, {SIGTERM})}, 76, 1},
      {"killed by the launcher in the end",
       {returned(1, 76), killed(0, SIGKILL, {SIGTERM, SIGKILL})},
       76,
       1},
      {"killed by someone else", {killed(1, SIGKILL), killed(0, SIGTERM, {SIGTERM})}, 137, 1},
      {"a stop before anybody listens",
       {killed(0, SIGTERM, {SIGTERM}), returned(1, 76, {SIGTERM})},
       143,
       -1},
      {"the program's own 128 + n",
       {returned(0, 143, {SIGTERM}), returned(1, 143, {SIGTERM})},
       143,
       -1},
      {"128 + n of a signal that was not sent", {returned(0, 143)}, 143, 0},
      {"did not stop in time", {killed(0, SIGKILL, {SIGTERM, SIGKILL})}, 137, -1},
      {"saved, though another had to be killed",
       {returned(0, 75, {SIGTERM}), killed(1, SIGKILL, {SIGTERM, SIGKILL})},
       75,
       -1},
      {"fails while it stops", {returned(0, 74, {SIGTERM}), returned(1, 75, {SIGTERM})}, 74, 0},
  };
  for (const Case& c : cases) {
    const GroupEnd group = judge(c.ends);
    EXPECT_EQ(group.code, c.code) << c.name;
    EXPECT_EQ(group.culprit ? group.culprit->rank : -1, c.culprit) << c.name;
  }
}

TEST(RestartRule, ByDefault) {
  const RestartRule rule;
  for (const int code : {70, 74, 76, 128 + SIGKILL, 128 + SIGABRT})
    EXPECT_TRUE(rule.allows(returned(0, code))) << code;
  for (const int code :
       {1, 64, 65, 66, 73, 77, 78, 80, 81, 82, 127, 128 + SIGTERM, 128 + SIGINT, 255}) {
    EXPECT_FALSE(rule.allows(returned(0, code))) << code;
  }
  for (const int signal : {SIGKILL, SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE})
    EXPECT_TRUE(rule.allows(killed(0, signal))) << signal;
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1})
    EXPECT_FALSE(rule.allows(killed(0, signal))) << signal;
}

TEST(RestartRule, AsText) {
  const RestartRule usual = parse_restart_rule("signal,70,74,76");
  EXPECT_EQ(usual.signals, RestartRule{}.signals);
  EXPECT_EQ(usual.codes, RestartRule{}.codes);
  const RestartRule some = parse_restart_rule("82,1");
  EXPECT_TRUE(some.allows(returned(0, 1)));
  EXPECT_FALSE(some.allows(returned(0, 70)));
  EXPECT_FALSE(some.allows(killed(0, SIGSEGV)));
  EXPECT_FALSE(parse_restart_rule("none").allows(returned(0, 70)));
  for (const char* wrong :
       {"", ",", "70,", "seventy", "0", "75", "129", "-1", "none,70", "signal 70", "7x"}) {
    try {
      parse_restart_rule(wrong);
      ADD_FAILURE() << wrong;
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_THAT(error.what(), testing::HasSubstr("--restart-on"));
    }
  }
}

TEST(RankEnd, IsDescribed) {
  RankEnd end = killed(0, SIGKILL);
  end.seconds = 12.34;
  EXPECT_EQ(describe(end), "was killed by signal 9 (Killed) after 12.3 s");
  EXPECT_EQ(describe(returned(0, 76)), "ended with code 76 (another process is gone) after 0.0 s");
  EXPECT_EQ(describe(returned(0, 3)), "ended with code 3 after 0.0 s");
}

}  // namespace
}  // namespace polysketch
