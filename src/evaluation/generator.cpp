// SPDX-License-Identifier: Apache-2.0
#include "evaluation/generator.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "support/error.hpp"
#include "support/philox.hpp"

namespace polysketch {

int32_t sample(const std::vector<float>& logits, const SamplingOptions& options, double uniform) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  // Ties go to the smaller id, so the order is one and the same everywhere.
  const auto more_probable = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (options.temperature == 0) return *std::min_element(order.begin(), order.end(), more_probable);
  size_t kept = order.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<size_t>(options.top_k));
  const auto middle = order.begin() + static_cast<std::ptrdiff_t>(kept);
  if (kept < order.size()) std::nth_element(order.begin(), middle, order.end(), more_probable);
  std::sort(order.begin(), middle, more_probable);
  order.resize(kept);

  std::vector<double> weight(kept);
  const double top = logits[static_cast<size_t>(order[0])];
  for (size_t i = 0; i < kept; ++i)
    weight[i] = std::exp((logits[static_cast<size_t>(order[i])] - top) / options.temperature);
  const double whole = std::accumulate(weight.begin(), weight.end(), 0.0);
  double share = 0;
  size_t used = 0;
  while (used < kept && (used == 0 || share < options.top_p * whole)) share += weight[used++];
  double left = uniform * share;
  for (size_t i = 0; i < used; ++i) {
    left -= weight[i];
    if (left < 0) return order[i];
  }
  return order[used - 1];
}

namespace {

at::Tensor as_tensor(std::vector<int64_t>& ids, size_t from, const at::Device& device) {
  return at::from_blob(ids.data() + from, {1, static_cast<int64_t>(ids.size() - from)}, at::kLong)
      .clone()
      .to(device);
}

}  // namespace

std::vector<int32_t> generate(Transformer& model, int64_t pieces,
                              const std::vector<int32_t>& prompt, const SamplingOptions& options,
                              const std::function<bool(int32_t)>& on_token) {
  require(!prompt.empty(), "generate needs at least one id to start from");
  require(pieces >= 1 && pieces <= model.options().model.vocabulary,
          "generate: the model has fewer rows than there are pieces");
  const Recurrence recurrence = model.attention(0).recurrence();
  const auto context = static_cast<size_t>(options.context);
  std::vector<int64_t> ids(prompt.begin(), prompt.end());
  std::vector<int32_t> added;
  Philox random(options.seed, RandomPurpose::generation);
  std::optional<DecodeState> state;
  if (recurrence != Recurrence::none) state = model.initial_state();
  while (static_cast<int64_t>(added.size()) < options.tokens) {
    at::Tensor logits;
    if (state && (recurrence == Recurrence::constant || ids.size() <= context)) {
      logits = model.next_logits(
          *state, as_tensor(ids, static_cast<size_t>(state->length), model.options().device));
    } else {
      state.reset();  // a window that moves has new positions, so nothing of it can be kept
      logits = model.logits(
          as_tensor(ids, ids.size() - std::min(context, ids.size()), model.options().device), {},
          /*last_only=*/true);
    }
    logits = logits.to(at::kCPU, at::kFloat).contiguous();
    const float* values = logits.data_ptr<float>();
    const int32_t next =
        sample(std::vector<float>(values, values + pieces), options, random.uniform());
    if (next == options.stop) break;
    ids.push_back(next);
    added.push_back(next);
    if (on_token && !on_token(next)) break;
  }
  return added;
}

}  // namespace polysketch
