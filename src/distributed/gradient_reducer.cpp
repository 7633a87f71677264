// SPDX-License-Identifier: Apache-2.0
#include "distributed/gradient_reducer.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "support/error.hpp"

namespace polysketch {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

GradientReducer::GradientReducer(Parameters& parameters, Collectives& collectives, ReduceType type,
                                 bool scatter)
    : parameters_(parameters), collectives_(collectives), type_(type), scatter_(scatter) {
  const auto& buckets = parameters_.buckets();
  parameters_in_.assign(buckets.size(), 0);
  buckets_of_.resize(parameters_.infos().size());
  for (size_t i = 0; i < parameters_.infos().size(); ++i) {
    const ParameterInfo& info = parameters_.infos()[i];
    for (size_t b = 0; b < buckets.size(); ++b) {
      if (info.offset >= buckets[b].end || info.offset + info.count <= buckets[b].begin) continue;
      buckets_of_[i].push_back(b);
      ++parameters_in_[b];
    }
  }
  narrow_.resize(buckets.size());
  pending_.resize(buckets.size());
}

std::function<void(size_t)> GradientReducer::last_backward() {
  begin();
  return [this](size_t parameter) { ready(parameter); };
}

void GradientReducer::begin() {
  begun_ = true;
  missing_ = parameters_in_;
  next_ = 0;
  bytes_ = 0;
}

void GradientReducer::ready(size_t parameter) {
  for (const size_t bucket : buckets_of_.at(parameter)) --missing_[bucket];
  // In the order of buckets, the same on every process.
  while (next_ < missing_.size() && missing_[next_] == 0) start(next_++);
}

void GradientReducer::finish_without_part() {
  if (!begun_) begin();
  while (next_ < missing_.size()) start(next_++);
  finish();
}

void GradientReducer::start(size_t bucket) {
  const FlatRange& range = parameters_.buckets()[bucket];
  at::Tensor sums = parameters_.flat_gradient().narrow(0, range.begin, range.count());
  if (type_ == ReduceType::bf16) sums = narrow_[bucket] = sums.to(at::kBFloat16);
  const std::string what = "gradients " + std::to_string(bucket);
  pending_[bucket] = scatter_ ? collectives_.reduce_scatter(sums, what)
                              : collectives_.all_reduce(sums, ReduceOperation::sum, what);
  bytes_ += static_cast<int64_t>(sums.nbytes());
}

void GradientReducer::finish() {
  require(next_ == missing_.size(), "a parameter has not said that its gradient is complete");
  const double computed = now();
  double last_end = 0;
  times_ = {};
  for (size_t bucket = 0; bucket < pending_.size(); ++bucket) {
    pending_[bucket]->wait();
    const auto [begun, ended] = pending_[bucket]->span();
    const double from = std::max(begun, last_end);
    if (ended > from) times_.communication += ended - from;
    last_end = std::max(last_end, ended);
    pending_[bucket].reset();
    if (type_ != ReduceType::bf16) continue;
    const FlatRange& range = parameters_.buckets()[bucket];
    parameters_.flat_gradient().narrow(0, range.begin, range.count()).copy_(narrow_[bucket]);
    narrow_[bucket].reset();
  }
  times_.exposed = std::max(0.0, last_end - computed);
  begun_ = false;
}

CanonicalReduction::CanonicalReduction(Parameters& parameters, Collectives& collectives,
                                       int64_t shards)
    : parameters_(parameters), collectives_(collectives), shards_(shards) {
  require(shards >= 1 && shards % collectives.world() == 0,
          "the number of shards is no multiple of the number of processes");
}

void CanonicalReduction::finish_without_part() {
  while (taken_ < sums()) sum_complete();
  finish();
}

void CanonicalReduction::sum_complete() {
  at::NoGradGuard no_grad;
  at::Tensor& gradient = parameters_.flat_gradient();
  // The first process may add up at once: its shards are the first of all.
  const bool adds = collectives_.rank() == 0 && taken_ > 0;
  if (adds) {
    kept_[0].add_(gradient);
  } else if (static_cast<int64_t>(kept_.size()) <= taken_) {
    kept_.push_back(gradient.clone());
  } else {
    kept_[static_cast<size_t>(taken_)].copy_(gradient);
  }
  gradient.zero_();
  ++taken_;
  require(taken_ <= sums(), "more shards than this process has");
}

void CanonicalReduction::finish() {
  at::NoGradGuard no_grad;
  const int64_t world = collectives_.world(), own = sums();
  require(taken_ == own, "fewer shards than this process has");
  taken_ = 0;
  at::Tensor& gradient = parameters_.flat_gradient();
  if (world == 1) {
    gradient.copy_(kept_[0]);
    return;
  }
  for (size_t b = 0; b < parameters_.buckets().size(); ++b) {
    const FlatRange& range = parameters_.buckets()[b];
    const int64_t n = range.count();
    at::Tensor all = at::zeros({world * own * n}, gradient.options()),
               mine = at::zeros({own * n}, gradient.options());
    for (size_t i = 0; i < kept_.size(); ++i)
      mine.narrow(0, static_cast<int64_t>(i) * n, n).copy_(kept_[i].narrow(0, range.begin, n));
    collectives_.all_gather(all, mine, "shards of gradients " + std::to_string(b))->wait();
    at::Tensor sum = gradient.narrow(0, range.begin, n);
    sum.copy_(all.narrow(0, 0, n));  // shards 0 … own-1, added up by the first process
    for (int64_t shard = own; shard < shards_; ++shard) sum.add_(all.narrow(0, shard * n, n));
  }
}

}  // namespace polysketch
