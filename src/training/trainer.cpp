// SPDX-License-Identifier: Apache-2.0
#include "training/trainer.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "evaluation/perplexity.hpp"
#include "model/device.hpp"
#include "support/log.hpp"
#include "support/stop_signal.hpp"
#include "training/diagnostics.hpp"
#include "training/learning_rate.hpp"

namespace polysketch {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

int64_t micro_batch_rows(const TrainingConfig& config, int64_t context, int64_t sequences, bool gpu) {
  if (config.micro_batch_tokens > 0) return std::min(sequences, config.micro_batch_tokens / context);
  const int64_t most = std::max<int64_t>(1, (gpu ? 65536 : 4096) / context);
  int64_t rows = std::min(sequences, most);
  while (sequences % rows != 0) --rows;
  return rows;
}

ModelInput Trainer::to_input(const Batch& batch) const {
  const auto rows = batch.rows, length = batch.context;
  const auto host = at::TensorOptions().dtype(at::kLong).pinned_memory(device_.is_cuda());
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
  ModelInput input{.ids = ids.to(device_, /*non_blocking=*/true),
                   .targets = targets.to(device_, /*non_blocking=*/true),
                   .documents = {},
                   .dropout = {static_cast<uint64_t>(config_.run.seed), state_.step, batch.first_sequence}};
  if (!batch.documents.empty()) {
    at::Tensor documents = at::from_blob(const_cast<int32_t*>(batch.documents.data()), {rows, length + 1}, at::kInt);
    input.documents = Documents(documents.narrow(1, 0, length).contiguous());
  }
  return input;
}

void Trainer::record(const std::string& event, nlohmann::ordered_json fields) {
  const MetricRecord row{event, state_.step, state_.tokens, std::move(fields)};
  for (const auto& sink : sinks_) sink->record(row);
}

Trainer::StepOutcome Trainer::train_step() {
  const auto start = Clock::now();
  const double waited_before = batches_->seconds_waited();
  const double scale = 1.0 / static_cast<double>(config_.training.batch_tokens);
  at::Tensor nats = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(device_));
  uint64_t digest = state_.digest;
  model_->at_step(state_.step);
  const int64_t every = config_.logging.diagnostics;
  std::optional<AttentionProbe> probe;  // looked at when the step is over
  for (int64_t done = 0; done < sequences_per_step_; done += rows_) {
    const Batch batch = batches_->next();
    if (batch.rows == 0) {  // a stop was asked for while waiting for data: this step has not happened
      model_->parameters().flat_gradient().zero_();
      return StepOutcome::stopped;
    }
    digest += batch.digest;
    ModelInput input = to_input(batch);
    if (done == 0 && every > 0 && (state_.step + 1) % every == 0) {
      probe.emplace(static_cast<uint64_t>(config_.run.seed), state_.step, model_->layers(), config_.model.heads, batch.rows, batch.context,
                    input.documents);
      input.probe = &*probe;
    }
    nats += model_->forward_backward(input, scale);
  }
  const double rate = learning_rate(config_.schedule, state_.step, config_.training.steps);
  const AdamW::Result update = optimizer_->step(rate, state_.step + 1);
  const double loss = nats.item<double>() * scale, norm = update.gradient_norm.item<double>();
  if (!std::isfinite(loss) || !std::isfinite(norm)) {
    throw UserError(ExitCode::numeric,
                    fmt::format("step {}: loss {} and gradient norm {} are not finite (sequences {} to {}); no update was made, the last "
                                "checkpoint is untouched: lower schedule.peak, lengthen schedule.warmup or use training.precision: fp32",
                                state_.step + 1, loss, norm, state_.sequences, state_.sequences + sequences_per_step_ - 1));
  }
  state_.step += 1;
  state_.sequences += sequences_per_step_;
  state_.tokens += config_.training.batch_tokens;
  state_.digest = digest;

  const double seconds = seconds_since(start);
  const double speed = static_cast<double>(config_.training.batch_tokens) / seconds;
  nlohmann::ordered_json fields{{"loss", loss},
                                {"perplexity", std::exp(loss)},
                                {"learning_rate", rate},
                                {"gradient_norm", norm},
                                {"tokens_per_second", speed},
                                {"seconds_per_step", seconds},
                                {"data_wait_fraction", (batches_->seconds_waited() - waited_before) / seconds}};
  const double peak = peak_flops(device_, model_->options().compute);
  if (peak > 0) {
    fields["mfu"] = cost_.flops_per_token * speed / peak;
    fields["mfu_causal"] = cost_.flops_per_token_causal * speed / peak;
  }
  fields["peak_bytes"] = peak_memory_bytes(device_);
  fields["token_digest"] = digest_text(state_.digest);
  fields["epoch"] = batches_->epoch();
  record("step", std::move(fields));
  if (probe) record("diagnostics", diagnostics_fields(*model_, *probe));
  return StepOutcome::done;
}

bool Trainer::validate() {
  const EvaluationConfig& evaluation = config_.evaluation;
  const PerplexityOptions options{.split = evaluation.split,
                                  .context = config_.data.context,
                                  .max_tokens = evaluation.tokens,
                                  .batch_tokens = rows_ * config_.data.context,
                                  .stop = [] { return StopSignal::requested(); },
                                  .progress = {}};
  const auto measured = measure_perplexity(*model_, config_.data, *corpus_, *tokenizer_, options);
  if (!measured) return false;
  const double loss = measured->nats_per_token();
  if (state_.last_validation < 0 || std::isnan(state_.best_loss) || loss < state_.best_loss) state_.best_loss = loss;
  state_.last_validation = state_.step;
  nlohmann::ordered_json fields{{"loss", loss}, {"perplexity", measured->per_token()}};
  if (measured->complete) fields["bits_per_byte"] = measured->bits_per_byte();
  fields["tokens_scored"] = measured->counts.scored;
  fields["best_loss"] = state_.best_loss;
  fields["seconds"] = measured->seconds;
  record("validation", std::move(fields));
  return true;
}

ExitCode Trainer::finish(bool stopped) {
  if (saved_step_ != state_.step) save();
  record(stopped ? "stop" : "end", {{"token_digest", digest_text(state_.digest)}});
  for (const auto& sink : sinks_) sink->flush();
  if (!stopped) return ExitCode::done;
  log_info(fmt::format("stopped after step {} by signal {}, everything saved: the same command continues the run", state_.step,
                       StopSignal::number()));
  return ExitCode::stopped;
}

ExitCode Trainer::run() {
  const auto due = [&](int64_t every) { return every > 0 && state_.step % every == 0; };
  const auto validation_due = [&] {
    return config_.evaluation.every > 0 && state_.step > 0 && state_.last_validation != state_.step &&
           (due(config_.evaluation.every) || state_.step == config_.training.steps);
  };
  if (state_.step >= config_.training.steps && !validation_due()) {
    log_info(fmt::format("nothing to do: the run is at step {} of {}", state_.step, config_.training.steps));
    return ExitCode::done;
  }
  if (validation_due() && !validate()) return finish(/*stopped=*/true);  // a stop had interrupted it
  while (state_.step < config_.training.steps) {
    if (StopSignal::requested() || train_step() == StepOutcome::stopped) return finish(/*stopped=*/true);
    if (validation_due() && !validate()) return finish(/*stopped=*/true);
    if (due(config_.checkpoint.every)) save();
  }
  return finish(/*stopped=*/false);
}

}  // namespace polysketch
