// SPDX-License-Identifier: Apache-2.0
// What becomes of what ranks write.
#include <stdlib.h>  // NOLINT: posix_openpt

#include <map>

#include "launch/launched.hpp"
#include "launch/lines.hpp"

namespace polysketch::test {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::MatchesRegex;

TEST_F(Launcher, KeepsLinesWhole) {
  // Each line leaves its rank in three pieces.
  Launched launched(sh(3,
                       "i=0; while [ $i -lt 300 ]; do printf %s \"$RANK:\"; printf %s $i; echo "
                       ":end; echo $RANK-$i-err >&2; i=$((i+1)); done"),
                    [] { dup2(STDOUT_FILENO, STDERR_FILENO); });
  EXPECT_EQ(launched.wait(), 0);
  std::map<std::string, int> next;
  for (const std::string& line : launched.out_lines()) {
    if (line.starts_with("[launch] ")) continue;
    ASSERT_THAT(line, MatchesRegex("\\[([0-2])\\] [0-2](:[0-9]+:end|-[0-9]+-err)"));
    EXPECT_EQ(line[1], line[4]);
    const bool error = line.ends_with("err");
    // The lines of one stream stay in order.
    int& expected = next[line.substr(0, 3) + (error ? "err" : "out")];
    EXPECT_EQ(line.substr(6, line.find_last_of(":-") - 6), std::to_string(expected++));
  }
  EXPECT_EQ(next.size(), 6u);
  for (const auto& [stream, count] : next) EXPECT_EQ(count, 300) << stream;
}

/// Standard output and error are one pipe, which is full now and then, so that lines leave in
/// pieces.
TEST_F(Launcher, KeepsLinesWholeInOnePipe) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Launched launched(sh(2,
                       "o=$(head -c 5000 /dev/zero | tr '\\0' o); e=$(echo $o | tr o e)\n"
                       "for i in 1 2 3 4 5 6 7 8 9 0; do echo $o; echo $e >&2; echo $o; echo $e "
                       ">&2; done; touch $D/end$RANK"),
                    [&] {
                      dup2(ends[1], STDOUT_FILENO);
                      dup2(ends[1], STDERR_FILENO);
                    });
  close(ends[1]);
  // more than the pipe holds is on its way
  ASSERT_TRUE(eventually([&] { return all_exist("end", 2); }));
  std::string text(1 << 20, '\0');
  size_t size = 0;
  for (ssize_t got = 1; got > 0; size += static_cast<size_t>(got))
    got = std::max<ssize_t>(0, read(ends[0], &text[size], 1000));
  EXPECT_EQ(launched.wait(), 0);
  size_t whole = 0;
  for (const std::string& line : Launched::lines(text.substr(0, size))) {
    if (line.starts_with("[launch] ")) continue;
    ++whole;
    EXPECT_TRUE(line.substr(4) == std::string(5000, 'o') ||
                line.substr(4) == std::string(5000, 'e'))
        << line.substr(0, 80);
  }
  EXPECT_EQ(whole, 80u);
  close(ends[0]);
}

TEST_F(Launcher, ADocumentIsThatOfRankZeroAlone) {
  LaunchOptions options =
      sh(3,
         "printf '{\"rank\":'; echo note $RANK >&2; sleep 0.02; printf ' '; printf "
         "'%s,\\n\\n\"long\": \"' $RANK; head -c 200000 /dev/zero | tr '\\0' x; printf "
         "'\"}'");
  options.document = true;
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 0);
  EXPECT_EQ(launched.out(), "{\"rank\": 0,\n\n\"long\": \"" + std::string(200'000, 'x') + "\"}");
  EXPECT_THAT(launched.err_lines(),
              AllOf(Contains("[0] note 0"), Contains("[2] note 2"), Contains("[1] {\"rank\": 1,")));
}

TEST_F(Launcher, ADocumentIsThatOfTheLastAttempt) {
  LaunchOptions options =
      sh(2,
         "echo \"{$RANK$POLYSKETCH_ATTEMPT}\"; [ $RANK$POLYSKETCH_ATTEMPT = 10 ] && "
         "{ sleep 0.2; exit 74; }; exit 0");
  options.document = true;
  options.max_restarts = 1;
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 0);
  EXPECT_EQ(launched.out(), "{01}\n");
  EXPECT_THAT(launched.err_lines(), AllOf(Contains("[0] {00}"), Contains("[1] {11}")));
  // One that fails has printed what it has found, as a check of files does.
  options = sh(1, "echo '[]'; exit 81");
  options.document = true;
  Launched failed(options);
  EXPECT_EQ(failed.wait(), 81);
  EXPECT_EQ(failed.out(), "[]\n");
}

TEST_F(Launcher, ADocumentThatNobodyReadsIsNoFailureButALostOneIs) {
  LaunchOptions options = sh(2, "echo '{}'");
  options.document = true;
  Launched gone(options, [] {
    int ends[2];
    if (pipe(ends) == 0) dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
  });
  EXPECT_EQ(gone.wait(), 0);
  EXPECT_THAT(gone.err(), testing::Not(HasSubstr("lost")));
  Launched full(options, [] { dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO); });
  EXPECT_EQ(full.wait(), 74);
}

TEST_F(Launcher, FlushesALineWithoutEnd) {
  Launched launched(sh(1, "printf 'first\\n\\nlast'; printf warning >&2"));
  EXPECT_EQ(launched.wait(), 0);
  EXPECT_EQ(launched.out(), "[0] first\n[0] \n[0] last\n");
  EXPECT_THAT(launched.err(), testing::EndsWith("[0] warning\n"));
}

TEST_F(Launcher, CutsHugeLines) {
  Launched launched(sh(1, "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo next"));
  EXPECT_EQ(launched.wait(), 0);
  const auto lines = launched.out_lines();
  ASSERT_EQ(lines.size(), 1'000'000 / LineCutter::kLongest + 2);
  size_t xs = 0;
  for (size_t i = 0; i + 1 < lines.size(); ++i)
    xs += static_cast<size_t>(std::count(lines[i].begin(), lines[i].end(), 'x'));
  EXPECT_EQ(xs, 1'000'000u);
  EXPECT_EQ(lines.back(), "[0] next");
}

TEST_F(Launcher, PadsRanksAndBringsWhatWasWrittenLast) {
  Launched launched(sh(11, "head -c 60000 /dev/zero | tr '\\0' y"));
  EXPECT_EQ(launched.wait(), 0);
  const auto lines = launched.out_lines();
  EXPECT_EQ(lines.size(), 11u);
  for (const auto& line : lines) {
    EXPECT_THAT(line.substr(0, 5), MatchesRegex("\\[( [0-9]|10)\\] "));
    EXPECT_EQ(line.size(), 60'005u);
  }
}

TEST_F(Launcher, GoesOnWhenARankClosesItsOutput) {
  Launched launched(
      sh(2, "exec >&-; sleep 0.1; echo still here >&2; exec 2>&-; sleep 0.1; touch $D/end$RANK"));
  EXPECT_EQ(launched.wait(), 0);
  EXPECT_TRUE(all_exist("end", 2));
  EXPECT_THAT(launched.err_lines(), AllOf(Contains("[0] still here"), Contains("[1] still here")));
}

TEST_F(Launcher, ColoursOnlyOnATerminal) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(grantpt(terminal), 0);
  ASSERT_EQ(unlockpt(terminal), 0);
  Launched launched(sh(1, "echo hello; echo world >&2"), [&] {
    setenv("TERM", "xterm", 1);
    unsetenv("NO_COLOR");
    dup2(open(ptsname(terminal), O_RDWR | O_NOCTTY), STDOUT_FILENO);
  });
  EXPECT_EQ(launched.wait(), 0);
  std::string shown(1000, '\0');
  shown.resize(
      static_cast<size_t>(std::max<ssize_t>(0, read(terminal, shown.data(), shown.size()))));
  EXPECT_EQ(shown, "\033[32m[0]\033[0m hello\r\n");
  EXPECT_THAT(launched.err(), HasSubstr("\n[0] world\n"));
  close(terminal);
}

TEST_F(Launcher, WritesAFileForEachRank) {
  LaunchOptions options = sh(2,
                             "echo out $RANK; echo err $POLYSKETCH_ATTEMPT >&2; [ "
                             "$POLYSKETCH_ATTEMPT = 1 ] || [ $RANK = 0 ] || exit 70");
  options.log_folder = folder_ / "logs" / "run";
  options.max_restarts = 1;
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 0);
  const std::string log = read_text(folder_ / "logs" / "run" / "rank-1.log");
  auto lines = Launched::lines(log);
  ASSERT_EQ(lines.size(), 6u) << log;
  EXPECT_THAT(lines[0], MatchesRegex("== attempt 0, process [0-9]+, .*"));
  EXPECT_THAT(lines[3], MatchesRegex("== attempt 1, process [0-9]+, .*"));
  EXPECT_THAT(lines, AllOf(Contains("out 1").Times(2), Contains("err 0"), Contains("err 1")));
  EXPECT_THAT(launched.out_lines(), Contains("[1] out 1").Times(2));
}

TEST_F(Launcher, ALogFolderThatCannotBe) {
  write_text(folder_ / "file", "");
  LaunchOptions options = sh(1, "touch $D/started");
  options.log_folder = folder_ / "file" / "logs";
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 73);
  EXPECT_THAT(launched.err(), HasSubstr("ERROR 73: --log-dir"));
  EXPECT_FALSE(exists("started"));
}

TEST_F(Launcher, NobodyListens) {
  Launched closed(sh(2, "echo hello; touch $D/end$RANK"), [] {
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
  });
  EXPECT_EQ(closed.wait(), 0);
  EXPECT_TRUE(all_exist("end", 2));

  Launched gone(
      sh(2, "for i in 1 2 3 4 5 6 7 8 9; do echo hello; sleep 0.01; done; touch $D/after$RANK"),
      [] {
        int ends[2];
        if (pipe(ends) == 0) dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
      });
  EXPECT_EQ(gone.wait(), 0);
  EXPECT_TRUE(all_exist("after", 2));
  EXPECT_THAT(gone.err_lines(),
              Contains(HasSubstr("standard output is lost: Broken pipe")).Times(1));

  Launched full(sh(2, "echo hello"), [] { dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO); });
  EXPECT_EQ(full.wait(), 74) << "lost output must not pass for success";
}

TEST_F(Launcher, AReaderThatDoesNotReadKeepsNobodyFromStopping) {
  for (const bool twice : {false, true}) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const std::string trap = twice ? "trap '' TERM" : "trap 'exit 75' TERM";
    Launched launched(sh(2, trap + "; echo $$ > $D/ready$RANK; while :; do head -c 300000 "
                                   "/dev/zero | tr '\\0' z; echo; done"),
                      [&] { dup2(ends[1], STDOUT_FILENO); });
    ASSERT_TRUE(eventually([&] { return all_exist("ready", 2); }));
    // until everything is full; the test holds without that too
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    launched.signal(SIGTERM);
    ASSERT_TRUE(eventually([&] { return launched.err().find("passed on") != std::string::npos; }));
    if (twice) launched.signal(SIGTERM);
    EXPECT_EQ(launched.wait(), twice ? 128 + SIGTERM : 75);
    expect_all_gone("ready", 2);
    for (const char* name : {"ready0", "ready1"}) std::filesystem::remove(folder_ / name);
    close(ends[0]);
    close(ends[1]);
  }
}

}  // namespace
}  // namespace polysketch::test
