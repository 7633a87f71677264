// SPDX-License-Identifier: Apache-2.0
#include "distributed/step_agreement.hpp"

#include <algorithm>

namespace polysketch {
namespace {

constexpr int kFlags = 3;
constexpr int kLimbs = 4;  // 16 bits of a digest each: their sums over processes stay exact

}  // namespace

double StepFacts::total_nats() const {
  double sum = 0;
  for (const double value : nats) sum += value;
  return sum;
}

StepFacts agree(Collectives& collectives, const StepFacts& own) {
  if (collectives.world() == 1) return own;
  std::vector<double> word{own.stop ? 1.0 : 0.0, own.save ? 1.0 : 0.0, own.failed ? 1.0 : 0.0};
  for (int limb = 0; limb < kLimbs; ++limb)
    word.push_back(static_cast<double>((own.digest >> (16 * limb)) & 0xffff));
  for (const auto* list : {&own.nats, &own.computing, &own.waiting})
    word.insert(word.end(), list->begin(), list->end());
  collectives.all_reduce(word, ReduceOperation::sum, "what is known of the step");

  StepFacts all = own;
  all.stop = word[0] > 0;
  all.save = word[1] > 0;
  all.failed = word[2] > 0;
  all.digest = 0;
  for (int limb = 0; limb < kLimbs; ++limb)
    all.digest += static_cast<uint64_t>(word[static_cast<size_t>(kFlags + limb)]) << (16 * limb);
  auto next = word.begin() + kFlags + kLimbs;
  for (auto* list : {&all.nats, &all.computing, &all.waiting}) {
    std::copy_n(next, list->size(), list->begin());
    next += static_cast<std::ptrdiff_t>(list->size());
  }
  return all;
}

}  // namespace polysketch
