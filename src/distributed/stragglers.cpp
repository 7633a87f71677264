// SPDX-License-Identifier: Apache-2.0
#include "distributed/stragglers.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "support/median.hpp"

namespace polysketch {
namespace {

constexpr int64_t kInARow = 5;   // slow steps before a process is named
constexpr int64_t kQuiet = 100;  // steps before it is named again
constexpr int64_t kProbeBytes = 65536;
constexpr double kNoticeable = 0.05;  // seconds: what is faster holds nobody up

}  // namespace

Stragglers::Stragglers(World& world, double factor)
    : world_(world), factor_(factor), slow_steps_(static_cast<size_t>(world.size())) {}

std::vector<double> Stragglers::probe_links() {
  const int64_t world = world_.size();
  std::vector<double> seconds(static_cast<size_t>(world), 0.0);
  for (int64_t from = 0; from < world; ++from) {
    // The first message of a pair may have to connect it.
    world_.collectives().ping(from, (from + 1) % world, 1);
    seconds[static_cast<size_t>(from)] =
        world_.collectives().ping(from, (from + 1) % world, kProbeBytes);
  }
  world_.collectives().all_reduce(seconds, ReduceOperation::sum, "times of the links");
  return seconds;
}

std::optional<std::string> Stragglers::slow_link() {
  const std::vector<double> seconds = probe_links();
  const auto world = static_cast<int64_t>(seconds.size());
  const auto rate = [](double s) {
    return fmt::format("{:.2f} Mbit/s", 8e-6 * static_cast<double>(kProbeBytes) / s);
  };
  const auto link = [&](int64_t from) {
    return seconds[static_cast<size_t>((from + world) % world)];
  };
  const double best = *std::min_element(seconds.begin(), seconds.end());
  const auto is_slow = [&](int64_t from) {
    return link(from) > kNoticeable && link(from) > 4 * best;
  };
  if (world == 2) {
    if (std::max(link(0), link(1)) <= kNoticeable) return std::nullopt;
    return fmt::format("the link between {} and {} is slow: {}", world_.name_of(0),
                       world_.name_of(1), rate(std::max(link(0), link(1))));
  }
  // Both links of a process on a slow line are slow.
  for (int64_t rank = 0; rank < world; ++rank) {
    if (is_slow(rank) && is_slow(rank - 1)) {
      return fmt::format("{} is connected slowly: {} where the best link has {}",
                         world_.name_of(rank), rate(std::max(link(rank), link(rank - 1))),
                         rate(best));
    }
  }
  for (int64_t rank = 0; rank < world; ++rank) {
    if (is_slow(rank)) {
      return fmt::format("the link from {} to {} is slow: {} where the best has {}",
                         world_.name_of(rank), world_.name_of((rank + 1) % world), rate(link(rank)),
                         rate(best));
    }
  }
  return std::nullopt;
}

std::optional<std::string> Stragglers::look(const std::vector<double>& computing,
                                            double exchanging) {
  if (factor_ == 0 || world_.size() == 1) return std::nullopt;
  ++steps_;
  quiet_steps_ = std::max<int64_t>(0, quiet_steps_ - 1);
  std::optional<std::string> found;
  for (size_t rank = 0; rank < computing.size(); ++rank) {
    std::vector<double> others = computing;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(rank));
    const double middle = median(others);
    const bool slow = computing[rank] > factor_ * middle && computing[rank] - middle > kNoticeable;
    slow_steps_[rank] = slow ? slow_steps_[rank] + 1 : 0;
    if (slow_steps_[rank] < kInARow || quiet_steps_ > 0) continue;
    found = fmt::format(
        "{} holds the others up: it computes {:.2f} s a step, the median of the others is {:.2f} s",
        world_.name_of(static_cast<int64_t>(rank)), computing[rank], middle);
  }
  // The first steps set what is usual; a link that is slow from the beginning shows by exchanges
  // longer than the computing.
  const bool grown = usual_exchange_ >= 0 && exchanging > 3 * usual_exchange_ + kNoticeable;
  const bool dominant = exchanging > median(computing) && exchanging > 10 * kNoticeable;
  if (!found && quiet_steps_ == 0 && steps_ > 1 && (grown || dominant))
    found = slow_link().value_or("");
  usual_exchange_ = usual_exchange_ < 0 || exchanging < usual_exchange_
                        ? exchanging
                        : 0.9 * usual_exchange_ + 0.1 * exchanging;
  if (!found) return std::nullopt;
  quiet_steps_ = kQuiet;
  return found->empty() ? std::nullopt : found;
}

}  // namespace polysketch
