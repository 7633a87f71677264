// SPDX-License-Identifier: Apache-2.0
#include "training/step.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "support/error.hpp"
#include "support/stop_signal.hpp"
#include "support/stopwatch.hpp"

namespace polysketch {

int64_t micro_batch_rows(const TrainingConfig& config, int64_t context, int64_t sequences,
                         bool gpu) {
  if (config.micro_batch_tokens > 0)
    return std::min(sequences, config.micro_batch_tokens / context);
  const int64_t most = std::max<int64_t>(1, (gpu ? 65536 : 4096) / context);
  int64_t rows = std::min(sequences, most);
  while (sequences % rows != 0) --rows;
  return rows;
}

TrainingStep::TrainingStep(Transformer& model, AdamW& optimizer, GradientExchange& exchange,
                           World& world, const Sizes& sizes, uint64_t seed)
    : model_(model),
      optimizer_(optimizer),
      exchange_(exchange),
      world_(world),
      sizes_(sizes),
      seed_(seed) {}

ModelInput TrainingStep::to_input(const Batch& batch, int64_t step) const {
  const at::Device device = model_.options().device;
  const auto rows = batch.rows, length = batch.context;
  const auto host = at::TensorOptions().dtype(at::kLong).pinned_memory(device.is_cuda());
  at::Tensor ids = at::empty({rows, length}, host), targets = at::empty({rows, length}, host);
  auto* id = ids.data_ptr<int64_t>();
  auto* target = targets.data_ptr<int64_t>();
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t* from = batch.ids.data() + row * (length + 1);
    for (int64_t t = 0; t < length; ++t) {
      id[row * length + t] = from[t];
      target[row * length + t] = from[t + 1];
    }
  }
  ModelInput input{.ids = ids.to(device, /*non_blocking=*/true),
                   .targets = targets.to(device, /*non_blocking=*/true),
                   .documents = {},
                   .dropout = {seed_, step, batch.first_sequence}};
  if (!batch.documents.empty()) {
    at::Tensor documents =
        at::from_blob(const_cast<int32_t*>(batch.documents.data()), {rows, length + 1}, at::kInt);
    input.documents = Documents(documents.narrow(1, 0, length).contiguous());
  }
  return input;
}

// This process's part of a step: gradients are added up, exchanges begin while the last micro-batch
// goes backward. False: a stop was asked for while waiting for data.
bool TrainingStep::accumulate(BatchSource& source, int64_t step, const Wish& wish, StepFacts& facts,
                              std::vector<at::Tensor>& nats, StepResult& result) {
  const double scale = 1.0 / static_cast<double>(sizes_.batch_tokens);
  const int64_t own = sizes_.batch_tokens / sizes_.context / world_.size();
  const int64_t per_sum = own / exchange_.sums();
  for (int64_t done = 0; done < own; done += sizes_.rows) {
    const Batch batch = source.next();
    if (batch.rows == 0) return false;
    facts.digest += batch.digest;
    std::function<void(size_t)> ready;
    if (done + sizes_.rows == own) ready = exchange_.last_backward();
    ModelInput input = to_input(batch, step);
    // The first rows of a step belong to rank 0, so that what is looked at does not depend on the
    // number of processes.
    if (wish.probe && world_.leads() && done == 0) {
      result.probe.emplace(seed_, step, model_.layers(), model_.options().model.heads, batch.rows,
                           batch.context, input.documents);
      input.probe = &*result.probe;
    }
    nats[static_cast<size_t>(done / per_sum)] += model_.forward_backward(input, scale, ready);
    if ((done + sizes_.rows) % per_sum == 0) exchange_.sum_complete();
  }
  return true;
}

StepResult TrainingStep::compute(BatchSource& source, int64_t step, const Wish& wish) {
  const Stopwatch whole;
  const double waited_before = source.seconds_waited();
  const auto rank = static_cast<size_t>(world_.rank());
  const auto sums = static_cast<size_t>(exchange_.sums());
  StepFacts facts(world_.size(), exchange_.sums() * world_.size());
  StepResult result;
  std::vector<at::Tensor> nats(sums);
  for (at::Tensor& sum : nats)
    sum = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(model_.options().device));
  model_.at_step(step);
  try {
    result.happened = accumulate(source, step, wish, facts, nats, result);
  } catch (const UserError& error) {
    if (world_.size() == 1 || error.code() == ExitCode::distributed) throw;
    result.error = std::current_exception();
  } catch (const std::exception&) {
    if (world_.size() == 1) throw;
    result.error = std::current_exception();
  }
  if (!result.happened) {
    model_.parameters().flat_gradient().zero_();
    return result;
  }
  facts.waiting[rank] = source.seconds_waited() - waited_before;
  facts.computing[rank] = whole.seconds() - facts.waiting[rank];
  const Stopwatch exchanging;
  if (result.error) {
    exchange_.finish_without_part();
  } else {
    exchange_.finish();
  }
  result.norm = optimizer_.gradient_norm();
  for (size_t i = 0; i < sums; ++i) facts.nats[rank * sums + i] = nats[i].item<double>();
  facts.stop = StopSignal::requested();
  facts.failed = result.error != nullptr;
  facts.save = wish.save;
  StepFacts all = agree(world_.collectives(), facts);
  result.exchanging = exchanging.seconds();
  result.failed = all.failed;
  result.loss = all.total_nats() * (1.0 / static_cast<double>(sizes_.batch_tokens));
  result.gradient_norm = result.norm.item<double>();
  result.digest = all.digest;
  result.stop = all.stop;
  result.save = all.save;
  result.computing = std::move(all.computing);
  result.waiting = std::move(all.waiting);
  if (result.failed) model_.parameters().flat_gradient().zero_();
  return result;
}

void TrainingStep::apply(const StepResult& result, double learning_rate, int64_t step) {
  optimizer_.apply(learning_rate, step + 1, result.norm);
}

}  // namespace polysketch
