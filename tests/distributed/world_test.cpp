// SPDX-License-Identifier: Apache-2.0
#include "distributed/world.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "distributed/ranks.hpp"
#include "helpers/test_helpers.hpp"

namespace polysketch::test {
namespace {

using testing::HasSubstr;

/// The text of the error that f throws, with its code in front; empty if it throws none.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const UserError& error) {
    return std::to_string(static_cast<int>(error.code())) + " " + error.what();
  }
  return "";
}

/// Exchanges until one fails: 2 MB each, so that some are under way when a process dies.
void exchange_until_error(World& world) {
  at::Tensor numbers = at::ones({1 << 19}, at::kFloat);
  for (int64_t step = 1;; ++step) {
    world.at_step(step);
    world.collectives().all_reduce(numbers, ReduceOperation::sum, "numbers")->wait();
    numbers.fill_(1);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

TEST(World, AFileOnASharedDiskWillDoToMeet) {
  const TemporaryFolder folder;
  EXPECT_TRUE(run_ranks(3, [&](int64_t rank, int64_t) {
                Place place = place_of(rank, 3, 0);
                place.file = (folder / "store").string();
                const auto world =
                    World::join({.place = place, .config = quick_config(), .device = at::kCPU});
                std::vector<double> one{1};
                world->collectives().all_reduce(one, ReduceOperation::sum, "one");
                EXPECT_EQ(one[0], 3);
              }).all_succeeded());
}

TEST(World, ALaterAttemptDoesNotMeetTheTracesOfAnEarlierOne) {
  const TemporaryFolder folder;
  for (const int64_t attempt : {0, 1}) {
    EXPECT_TRUE(run_ranks(2, [&](int64_t rank, int64_t) {
                  Place place = place_of(rank, 2, 0);
                  place.file = (folder / "store").string();
                  place.attempt = attempt;
                  const auto world =
                      World::join({.place = place, .config = quick_config(), .device = at::kCPU});
                  if (attempt == 0) ::_exit(0);  // leaves everything in the store
                }).all_succeeded());
  }
}

TEST(World, WhoIsAbsentIsNamed) {
  const auto results = run_ranks(2, [&](int64_t rank, int64_t port) {
    DistributedConfig config = quick_config();
    config.timeout = 2;
    if (rank == 1) rank = 2;
    EXPECT_THAT(error_of([&] { join(rank, 4, port, config); }),
                HasSubstr("ranks 1, 3 of 4 did not come"));
  });
  EXPECT_TRUE(results.all_succeeded());
}

TEST(World, ARankTakenTwiceIsNamed) {
  const auto results = run_ranks(3, [&](int64_t rank, int64_t port) {
    DistributedConfig config = quick_config();
    config.timeout = 3;
    const std::string error = error_of([&] { join(std::min<int64_t>(rank, 1), 3, port, config); });
    EXPECT_TRUE(error.starts_with("76 "));
    EXPECT_THAT(error,
                testing::AnyOf(HasSubstr("rank 1 is taken twice"),
                               HasSubstr("rank 2 of 3 did not come"), HasSubstr("lost the place")));
  });
  EXPECT_TRUE(results.all_succeeded());
}

TEST(World, AnotherNumberOfProcessesIsNoticed) {
  const auto results = run_ranks(2, [&](int64_t rank, int64_t port) {
    DistributedConfig config = quick_config();
    config.timeout = 3;
    const std::string error = error_of([&] { join(rank, rank == 0 ? 2 : 3, port, config); });
    EXPECT_TRUE(error.starts_with("76 ")) << error;
    EXPECT_THAT(error, testing::AnyOf(HasSubstr("WORLD_SIZE"), HasSubstr("did not come"),
                                      HasSubstr("lost the place")));
  });
  EXPECT_TRUE(results.all_succeeded());
}

TEST(World, APortThatIsTakenAndAHostThatDoesNotExistAreErrorsOfTheirOwn) {
  const auto results = run_ranks(1, [&](int64_t, int64_t port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(fd, 1), 0);
    EXPECT_THAT(error_of([&] { join(0, 2, port); }),
                HasSubstr("another process has the port: choose another MASTER_PORT"));
    Place place = place_of(0, 2, port);
    place.host = "no-such-host.invalid";
    EXPECT_THAT(error_of([&] {
                  World::join({.place = place, .config = quick_config(), .device = at::kCPU});
                }),
                HasSubstr("cannot be resolved"));
  });
  EXPECT_TRUE(results.all_succeeded());
}

TEST(World, OnlyTheGivenAddressListens) {
  const auto results = run_ranks(2, [&](int64_t rank, int64_t port) {
    DistributedConfig config = quick_config();
    config.address = "127.0.0.1";
    const auto world = join(rank, 2, port, config);
    // Any other address of the loopback network reaches a socket that listens everywhere.
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    ::inet_pton(AF_INET, "127.0.0.2", &address.sin_addr);
    EXPECT_NE(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  });
  EXPECT_TRUE(results.all_succeeded());
}

TEST(World, WhatMustBeAlikeIsComparedAndTheOddOneNamed) {
  const auto results = run_ranks(3, [&](int64_t rank, int64_t port) {
    const auto world = join(rank, 3, port);
    world->require_alike({{"configuration", "a"}, {"tokenizer", "b"}});
    const std::string error = error_of([&] {
      world->require_alike({{"configuration", rank == 1 ? "other" : "a"}, {"tokenizer", "b"}});
    });
    EXPECT_THAT(error, HasSubstr("78 the processes are not alike: configuration of rank 1 ("));
    EXPECT_THAT(error, HasSubstr("is other, that of ranks 0, 2 is a"));
  });
  EXPECT_TRUE(results.all_succeeded());
}

/// One process does `fault` in its fifth step; the others must end with 76 and name it.
void expect_survivors_to_blame(int64_t faulty, const std::function<void(World&)>& fault,
                               const std::string& blame, int faulty_code) {
  const auto start = std::chrono::steady_clock::now();
  const auto results = run_ranks(3, [&](int64_t rank, int64_t port) {
    DistributedConfig config = quick_config();
    config.step_timeout = 3;
    const auto world = join(rank, 3, port, config);
    if (rank == faulty) {
      at::Tensor numbers = at::ones({1 << 19}, at::kFloat);
      for (int64_t step = 1; step < 5; ++step) {
        world->at_step(step);
        world->collectives().all_reduce(numbers, ReduceOperation::sum, "numbers")->wait();
      }
      fault(*world);
      return;
    }
    std::string error;
    try {
      exchange_until_error(*world);
    } catch (const UserError& caught) {
      error = caught.what();
      EXPECT_THAT(error, HasSubstr("rank " + std::to_string(faulty) + " ("));
      EXPECT_THAT(error, HasSubstr(blame));
      EXPECT_THAT(error, HasSubstr("step 5: "));
      if (testing::Test::HasFailure()) return;
      throw;
    }
  });
  for (int64_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(results.codes[static_cast<size_t>(rank)], rank == faulty ? faulty_code : 76)
        << "rank " << rank;
  }
  // The limit is 3 s, and 5 s more are allowed; the rest is for starting three processes on a
  // loaded machine.
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
            3 + 5 + 10);
}

TEST(World, AKilledProcessIsNamedByTheSurvivors) {
  expect_survivors_to_blame(
      1, [](World&) { ::kill(::getpid(), SIGKILL); }, "gives no sign of life", 137);
}

TEST(World, TheDeathOfTheProcessThatServesTheStoreIsNoticed) {
  expect_survivors_to_blame(
      0, [](World&) { ::kill(::getpid(), SIGKILL); }, "does not answer", 137);
}

TEST(World, AnErrorOfItsOwnIsToldToTheOthers) {
  for (const int64_t faulty : {0, 2}) {
    expect_survivors_to_blame(
        faulty,
        [](World& world) {
          const UserError error(ExitCode::bad_data, "book.txt: record 3 is damaged");
          world.announce_end(error.code(), error.what());
          throw error;
        },
        "ended with exit code 65 (book.txt: record 3 is damaged)", 65);
  }
}

// The stopped process is let go on after the others have ended: then it notices that it is alone.
TEST(World, AStoppedProcessIsNamedAndEndsWhenItGoesOn) {
  expect_survivors_to_blame(
      1,
      [](World& world) {
        if (::fork() == 0) {
          const pid_t parent = ::getppid();
          ::kill(parent, SIGSTOP);
          ::sleep(10);
          ::kill(parent, SIGCONT);
          ::_exit(0);
        }
        exchange_until_error(world);
      },
      "gives no sign of life", 76);
}

}  // namespace
}  // namespace polysketch::test
