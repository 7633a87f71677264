// SPDX-License-Identifier: Apache-2.0
#include "launch/lines.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "helpers/test_helpers.hpp"

namespace polysketch {
namespace {

std::vector<std::string> cut(const std::vector<std::string>& pieces) {
  std::vector<std::string> lines;
  const auto sink = [&](std::string_view line) { lines.emplace_back(line); };
  LineCutter cutter;
  for (const auto& piece : pieces) cutter.feed(piece, sink);
  cutter.flush(sink);
  return lines;
}

TEST(LineCutter, CutsAtLineEnds) {
  EXPECT_THAT(cut({"a\nb", "c\n", "\n", "d"}), testing::ElementsAre("a", "bc", "", "d"));
  EXPECT_THAT(cut({""}), testing::IsEmpty());
  EXPECT_THAT(cut({"a\n"}), testing::ElementsAre("a"));
}

TEST(LineCutter, CutsLongLines) {
  const std::string longest(LineCutter::kLongest, 'x');
  EXPECT_THAT(cut({longest + "\n"}), testing::ElementsAre(longest)) << "as long as is allowed";
  EXPECT_THAT(cut({longest, "\nb"}), testing::ElementsAre(longest, "b")) << "the end comes later";
  EXPECT_THAT(cut({longest + "y\nb"}), testing::ElementsAre(longest, "y", "b"));
  EXPECT_THAT(cut({longest, longest + "y"}), testing::ElementsAre(longest, longest, "y"));
}

TEST(LineCutter, DoesNotDependOnThePieces) {
  std::string text;
  for (size_t i = 0; i < 400; ++i)
    text += std::string((i * 7919) % 997, static_cast<char>('a' + i % 26)) +
            (i % 5 == 0 ? "\n\n" : "\n");
  text += std::string(3 * LineCutter::kLongest + 17, 'z') + "\nend";
  const auto whole = cut({text});
  for (size_t length : {size_t{1}, size_t{7}, size_t{4096}, LineCutter::kLongest - 1,
                        LineCutter::kLongest, LineCutter::kLongest + 1}) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size(); at += length) pieces.push_back(text.substr(at, length));
    EXPECT_EQ(cut(pieces), whole) << length;
  }
}

TEST(LineQueue, WaitsForNobody) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  LineQueue queue(ends[1]);
  std::string sent, got;
  std::array<char, 100'000> buffer{};
  for (int i = 0; sent.size() < LineQueue::kFull + 1000; ++i) {
    const std::string line = std::to_string(i) + std::string(1000, 'q') + "\n";
    sent += line;
    queue.add(line);
    queue.write_some();  // returns although nobody reads
  }
  EXPECT_FALSE(queue.empty());
  queue.add(std::string(100'000, 'r') + "\n");
  sent += std::string(100'000, 'r') + "\n";
  EXPECT_TRUE(queue.full());
  while (got.size() < sent.size()) {
    const ssize_t n = read(ends[0], buffer.data(), buffer.size());
    ASSERT_GT(n, 0);
    got.append(buffer.data(), static_cast<size_t>(n));
    queue.write_some();
  }
  EXPECT_TRUE(got == sent);
  EXPECT_TRUE(queue.empty());
  EXPECT_FALSE(queue.full());
  EXPECT_EQ(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0) << "others write to the same descriptor";
  signal(SIGPIPE, SIG_IGN);
  close(ends[0]);
  queue.add("lost\n");
  queue.write_some();
  EXPECT_EQ(queue.failure(), EPIPE);
  EXPECT_TRUE(queue.empty());
  queue.add("more\n");
  EXPECT_TRUE(queue.empty());
  close(ends[1]);
}

TEST(LineQueue, KeepsWhatIsInAFile) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "file", "before\n");
  const int file = open((folder / "file").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  LineQueue queue(file);
  queue.add("after\n");
  queue.write_some();
  EXPECT_EQ(test::read_text(folder / "file"), "before\nafter\n");
  EXPECT_FALSE(queue.is_terminal());
  close(file);
}

}  // namespace
}  // namespace polysketch
