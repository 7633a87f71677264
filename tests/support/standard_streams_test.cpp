// SPDX-License-Identifier: Apache-2.0
#include "support/standard_streams.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "helpers/test_helpers.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

/// The code that `body` gives in a process of its own.
int in_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGPIPE, SIG_IGN);
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int code_of_print(const std::string& text) {
  try {
    print(text);
  } catch (const ReaderGone&) {
    return 1;
  } catch (const UserError& error) {
    return static_cast<int>(error.code());
  }
  return 0;
}

TEST(Print, TellsALostReaderFromALostText) {
  EXPECT_EQ(in_child([] {
              int ends[2];
              if (pipe(ends) != 0) return 9;
              dup2(ends[1], STDOUT_FILENO);
              close(ends[0]);
              return code_of_print("text");
            }),
            1);
  EXPECT_EQ(in_child([] {
              dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
              return code_of_print("text");
            }),
            74);
  EXPECT_EQ(in_child([] {
              close(STDOUT_FILENO);
              return code_of_print("text");
            }),
            74);
}

/// As the other end of ssh and of some runtimes has it.
TEST(Print, WaitsForAPipeThatIsSetNotToWait) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  ASSERT_EQ(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[1]);
    _exit(code_of_print(std::string(1'000'000, 'x')));
  }
  close(ends[1]);
  size_t size = 0;
  char buffer[4096];
  for (ssize_t got = 0; (got = read(ends[0], buffer, sizeof buffer)) > 0;)
    size += static_cast<size_t>(got);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(size, 1'000'000u);
}

TEST(JsonText, IsJsonWhateverItHolds) {
  const nlohmann::ordered_json document{{"nan", std::numeric_limits<double>::quiet_NaN()},
                                        {"inf", -std::numeric_limits<double>::infinity()},
                                        {"name", "caf\xe9.txt"}};
  EXPECT_EQ(json_text(document, -1),
            "{\"nan\":null,\"inf\":null,\"name\":\"caf\xEF\xBF\xBD.txt\"}");
}

TEST(StandardDescriptors, NoFileGetsTheNumberOfOneThatWasClosed) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(in_child([&] {
              for (const int number : {0, 1, 2}) close(number);
              open_standard_descriptors();
              const int file = open((folder / "data").c_str(), O_WRONLY | O_CREAT, 0600);
              if (file <= 2) return 1;
              return code_of_print("a line for a person") == 74 ? 0 : 2;
            }),
            0);
  EXPECT_EQ(test::read_text(folder / "data"), "");
}

TEST(StandardInput, IsReadToItsEnd) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "text", std::string(100'000, 'y'));
  EXPECT_EQ(in_child([&] {
              dup2(open((folder / "text").c_str(), O_RDONLY), STDIN_FILENO);
              if (read_standard_input() != std::string(100'000, 'y')) return 1;
              dup2(open(folder.path().c_str(), O_RDONLY), STDIN_FILENO);
              try {
                read_standard_input();
              } catch (const UserError& error) {
                return static_cast<int>(error.code());
              }
              return 2;
            }),
            74);
}

}  // namespace
}  // namespace polysketch
