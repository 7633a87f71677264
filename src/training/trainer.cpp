// SPDX-License-Identifier: Apache-2.0
#include "training/trainer.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "distributed/replica_check.hpp"
#include "evaluation/perplexity.hpp"
#include "model/device.hpp"
#include "support/durable_file.hpp"
#include "support/log.hpp"
#include "support/stop_signal.hpp"
#include "training/diagnostics.hpp"
#include "training/learning_rate.hpp"

namespace polysketch {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

int64_t micro_batch_rows(const TrainingConfig& config, int64_t context, int64_t sequences,
                         bool gpu) {
  if (config.micro_batch_tokens > 0)
    return std::min(sequences, config.micro_batch_tokens / context);
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
  ModelInput input{
      .ids = ids.to(device_, /*non_blocking=*/true),
      .targets = targets.to(device_, /*non_blocking=*/true),
      .documents = {},
      .dropout = {static_cast<uint64_t>(config_.run.seed), state_.step, batch.first_sequence}};
  if (!batch.documents.empty()) {
    at::Tensor documents =
        at::from_blob(const_cast<int32_t*>(batch.documents.data()), {rows, length + 1}, at::kInt);
    input.documents = Documents(documents.narrow(1, 0, length).contiguous());
  }
  return input;
}

void Trainer::record(const std::string& event, nlohmann::ordered_json fields) {
  const MetricRecord row{event, state_.step, state_.tokens, std::move(fields)};
  for (const auto& sink : sinks_) sink->record(row);
}

int64_t Trainer::sequences_per_sum() const {
  return sequences_per_step_ / (canonical() ? config_.distributed.shards : world_->size());
}

// This process's part of a step: gradients are added up, exchanges begin while the last micro-batch
// goes backward. False: a stop was asked for while waiting for data.
bool Trainer::compute_part(StepPart& part, StepFacts& facts) {
  const double scale = 1.0 / static_cast<double>(config_.training.batch_tokens);
  const int64_t own = sequences_per_step_ / world_->size(), per_sum = sequences_per_sum();
  const int64_t every = config_.logging.diagnostics;
  for (int64_t done = 0; done < own; done += rows_) {
    const Batch batch = batches_->next();
    if (batch.rows == 0) return false;
    facts.digest += batch.digest;
    std::function<void(size_t)> ready;
    if (reducer_ && done + rows_ == own) {
      reducer_->begin();
      part.reducing = true;
      ready = [this](size_t parameter) { reducer_->ready(parameter); };
    }
    ModelInput input = to_input(batch);
    // The first rows of a step belong to rank 0, so that what is looked at does not depend on the
    // number of processes.
    if (world_->leads() && done == 0 && every > 0 && (state_.step + 1) % every == 0) {
      part.probe.emplace(static_cast<uint64_t>(config_.run.seed), state_.step, model_->layers(),
                         config_.model.heads, batch.rows, batch.context, input.documents);
      input.probe = &*part.probe;
    }
    part.nats[static_cast<size_t>(done / per_sum)] += model_->forward_backward(input, scale, ready);
    if (reduction_ && (done + rows_) % per_sum == 0) {
      reduction_->take();
      ++part.taken;
    }
  }
  return true;
}

// The others wait for this process's part of the exchanges, although it has failed.
void Trainer::exchange_without_part(StepPart& part) {
  if (reducer_ && !part.reducing) reducer_->begin();
  if (reducer_) reducer_->take_part();
  for (; reduction_ && part.taken < static_cast<int64_t>(part.nats.size()); ++part.taken)
    reduction_->take();
}

Trainer::StepOutcome Trainer::train_step() {
  const auto start = Clock::now();
  const double waited_before = batches_->seconds_waited();
  const double scale = 1.0 / static_cast<double>(config_.training.batch_tokens);
  const auto rank = static_cast<size_t>(world_->rank());
  const int64_t sums = sequences_per_step_ / world_->size() / sequences_per_sum();
  StepFacts facts(world_->size(), canonical() ? config_.distributed.shards : world_->size());
  StepPart part;
  part.nats.resize(static_cast<size_t>(sums));
  for (at::Tensor& sum : part.nats)
    sum = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(device_));
  model_->at_step(state_.step);
  world_->at_step(state_.step + 1);
  std::exception_ptr error;
  try {
    if (!compute_part(part, facts)) {  // this step has not happened
      model_->parameters().flat_gradient().zero_();
      return StepOutcome::stopped;
    }
  } catch (const UserError& failed) {
    if (alone() || failed.code() == ExitCode::distributed) throw;
    error = std::current_exception();
  } catch (const std::exception&) {
    if (alone()) throw;
    error = std::current_exception();
  }
  if (error) exchange_without_part(part);
  facts.waiting[rank] = batches_->seconds_waited() - waited_before;
  facts.computing[rank] = seconds_since(start) - facts.waiting[rank];
  const auto computed = Clock::now();
  if (reducer_) reducer_->finish();
  if (reduction_) reduction_->finish();
  for (int64_t i = 0; i < sums; ++i) {
    facts.nats[static_cast<size_t>(world_->rank() * sums + i)] =
        part.nats[static_cast<size_t>(i)].item<double>();
  }
  facts.stop = StopSignal::requested();
  facts.failed = error != nullptr;
  const int64_t minutes = config_.checkpoint.minutes;
  facts.save = world_->leads() && minutes > 0 &&
               seconds_since(saved_at_) >= 60.0 * static_cast<double>(minutes);
  const StepFacts all = agree(world_->collectives(), facts);
  const double exchanging = seconds_since(computed);
  if (all.failed) {
    model_->parameters().flat_gradient().zero_();
    end_together(error);
  }

  const double rate = learning_rate(config_.schedule, state_.step, config_.training.steps);
  updating_ = true;
  const AdamW::Result update = optimizer_->step(rate, state_.step + 1);
  const double loss = all.total_nats() * scale, norm = update.gradient_norm.item<double>();
  if (!std::isfinite(loss) || !std::isfinite(norm)) {
    throw UserError(ExitCode::numeric,
                    fmt::format("step {}: loss {} and gradient norm {} are not finite (sequences "
                                "{} to {}); no update was made, the last "
                                "checkpoint is untouched: lower schedule.peak, lengthen "
                                "schedule.warmup or use training.precision: fp32",
                                state_.step + 1, loss, norm, state_.sequences,
                                state_.sequences + sequences_per_step_ - 1));
  }
  updating_ = false;
  state_.step += 1;
  state_.sequences += sequences_per_step_;
  state_.tokens += config_.training.batch_tokens;
  state_.digest += all.digest;

  const double seconds = seconds_since(start);
  const double speed = static_cast<double>(config_.training.batch_tokens) / seconds;
  nlohmann::ordered_json fields{
      {"loss", loss},
      {"perplexity", std::exp(loss)},
      {"learning_rate", rate},
      {"gradient_norm", norm},
      {"tokens_per_second", speed},
      {"seconds_per_step", seconds},
      {"data_wait_fraction", *std::max_element(all.waiting.begin(), all.waiting.end()) / seconds}};
  const double peak =
      peak_flops(device_, model_->options().compute) * static_cast<double>(world_->size());
  if (peak > 0) {
    fields["mfu"] = cost_.flops_per_token * speed / peak;
    fields["mfu_causal"] = cost_.flops_per_token_causal * speed / peak;
  }
  if (!alone()) {
    fields["exchange_fraction"] = exchanging / seconds;
    if (reducer_ && reducer_->times().communication > 0) {
      fields["communication_seconds"] = reducer_->times().communication;
      fields["communication_hidden"] = reducer_->times().hidden_share();
    }
    fields["slowest_rank"] =
        std::max_element(all.computing.begin(), all.computing.end()) - all.computing.begin();
    fields["computing_seconds"] = all.computing;
  }
  fields["peak_bytes"] = peak_memory_bytes(device_);
  fields["token_digest"] = digest_text(state_.digest);
  fields["epoch"] = batches_->epoch();
  record("step", std::move(fields));
  if (part.probe) record("diagnostics", diagnostics_fields(*model_, *part.probe));
  after_update(all, exchanging);
  return StepOutcome::done;
}

// What only several processes have to look after. Decisions come from `all` alone.
void Trainer::after_update(const StepFacts& all, double exchanging) {
  save_agreed_ = all.save;
  stop_agreed_ = all.stop;
  if (alone()) return;
  // All wait for the slowest, and that one for nobody: the shortest of the times is that of the
  // exchanges alone. Those of a reducer begin while backward runs, so that it measures them itself.
  std::vector<double> waited{reducer_ ? reducer_->times().communication : exchanging};
  if (stragglers_) {
    world_->collectives().all_reduce(waited, ReduceOperation::min, "time of exchanges");
    if (const auto who = stragglers_->look(all.computing, waited[0]); who && world_->leads())
      log_warning("straggler: " + *who);
  }
  const int64_t every = config_.distributed.check_replicas;
  if (every > 0 && state_.step % every == 0) require_equal_replicas(*world_, model_->parameters());
}

bool Trainer::validate() {
  const EvaluationConfig& evaluation = config_.evaluation;
  const PerplexityOptions options{.split = evaluation.split,
                                  .context = config_.data.context,
                                  .max_tokens = evaluation.tokens,
                                  .batch_tokens = rows_ * config_.data.context,
                                  .stop = [] { return StopSignal::requested(); },
                                  .collectives = &world_->collectives(),
                                  .progress = {}};
  std::optional<Perplexity> measured;
  try {
    measured = measure_perplexity(*model_, config_.data, *corpus_, *tokenizer_, options);
  } catch (const FailedElsewhere&) {
    end_together(nullptr);
  } catch (const UserError& error) {
    if (alone() || error.code() == ExitCode::distributed) throw;
    end_together(std::current_exception());
  }
  if (!measured) return false;
  const double loss = measured->nats_per_token();
  if (state_.last_validation < 0 || std::isnan(state_.best_loss) || loss < state_.best_loss)
    state_.best_loss = loss;
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
  // no training goes on that could save later: a failure is tried again at once
  while (saved_step_ != state_.step) save();
  record(stopped ? "stop" : "end", {{"token_digest", digest_text(state_.digest)}});
  for (const auto& sink : sinks_) sink->flush();
  if (!stopped) return ExitCode::done;
  if (world_->leads()) {
    const int number = StopSignal::number();
    log_info(fmt::format(
        "stopped after step {} by {}, everything saved: the same command continues the run",
        state_.step,
        number > 0 ? fmt::format("signal {}", number) : "a signal to another process"));
  }
  return ExitCode::stopped;
}

ExitCode Trainer::run() {
  const auto end = [&](ExitCode code, const char* text) {
    // An error of the numbers or of other processes leaves nothing that could be saved: the update
    // was not made, or the others cannot take part.
    const bool savable = code != ExitCode::numeric && code != ExitCode::distributed &&
                         code != ExitCode::hardware && alone();
    if (savable) save_before_the_end(text);
    world_->announce_end(code, text);
  };
  try {
    return train();
  } catch (const UserError& error) {
    end(error.code(), error.what());
    throw;
  } catch (const std::exception& error) {
    end(ExitCode::internal, error.what());
    throw;
  }
}

// What a run that ends by an error has done must not be lost with it.
void Trainer::save_before_the_end(const char* cause) {
  if (updating_ || !model_) return;
  record("error", {{"message", cause}});
  for (const auto& sink : sinks_) sink->flush();
  if (saved_step_ == state_.step || state_.step == 0 || save_attempts_.failed_before()) return;
  try {
    save();
    if (saved_step_ == state_.step && world_->leads())
      log_info(fmt::format("step {} is saved: the same command continues there", state_.step));
  } catch (const std::exception& error) {
    log_warning(fmt::format("step {} could not be saved: {}", state_.step, error.what()));
  }
}

void Trainer::end_together(const std::exception_ptr& own) {
  std::string said;
  if (own) {
    try {
      std::rethrow_exception(own);
    } catch (const UserError& error) {
      said = fmt::format("{} {}", static_cast<int>(error.code()), error.what());
    } catch (const std::exception& error) {
      said = fmt::format("{} {}", static_cast<int>(ExitCode::internal), error.what());
    }
  }
  const auto all = world_->collectives().all_gather_text(said, "an error");
  const auto first = static_cast<size_t>(
      std::find_if(all.begin(), all.end(), [](const auto& text) { return !text.empty(); }) -
      all.begin());
  require(first < all.size(), "a step has failed and nobody says why");
  const std::string text = all[first].substr(all[first].find(' ') + 1);
  save_before_the_end(text.c_str());
  if (own) std::rethrow_exception(own);
  throw UserError(static_cast<ExitCode>(std::atoi(all[first].c_str())),
                  fmt::format("{}: {}", world_->name_of(static_cast<int64_t>(first)), text));
}

void Trainer::check_folder() {
  folder_checked_at_ = Clock::now();
  const auto place = folder_->place();
  if (place && *place == fs::path(run_folder_)) return;
  const std::string before = run_folder_;
  if (place) {
    run_folder_ = place->string();
  } else {
    run_folder_ = exchange(peers(), [&] { return rescue_folder(before).string(); })[0];
    folder_ = std::make_unique<RunFolder>(run_folder_, peers());
    folder_->take();
    folder_->keep();
  }
  checkpoints_ = std::make_unique<CheckpointStore>(run_folder_, config_.checkpoint, peers());
  world_->dump_into(run_folder_);
  if (place) {
    if (world_->leads())
      log_warning(fmt::format("{}: the run folder was renamed: it is {} from here on", before,
                              run_folder_));
    return;
  }
  config_.run.directory = run_folder_;
  if (world_->leads()) {
    write_file_durably(run_folder_ + "/config.yaml", to_yaml(config_));
    write_file_durably(run_folder_ + "/run.json", describe_run());
  }
  saved_step_ = -1;
  save();
  throw UserError(
      ExitCode::cannot_create,
      fmt::format("{}: the run folder was removed or replaced while the run trained; step {} is "
                  "saved in {}: continue there with --set run.directory={}, or delete it",
                  before, state_.step, run_folder_, run_folder_));
}

bool Trainer::validation_due() const {
  const int64_t every = config_.evaluation.every, step = state_.step;
  return every > 0 && step > 0 && state_.last_validation != step &&
         (step % every == 0 || step == config_.training.steps);
}

ExitCode Trainer::train() {
  const auto due = [&](int64_t every) { return every > 0 && state_.step % every == 0; };
  if (finished()) {
    if (world_->leads())
      log_info(fmt::format("nothing to do: the run is at step {} of {}", state_.step,
                           config_.training.steps));
    return ExitCode::done;
  }
  // a stop had interrupted it
  if (validation_due() && !validate()) return finish(/*stopped=*/true);
  while (state_.step < config_.training.steps) {
    if ((alone() && StopSignal::requested()) || train_step() == StepOutcome::stopped)
      return finish(/*stopped=*/true);
    if (!alone() && stop_agreed_) return finish(/*stopped=*/true);
    if (alone() && seconds_since(folder_checked_at_) > 1) check_folder();
    if (validation_due() && !validate()) return finish(/*stopped=*/true);
    if (due(config_.checkpoint.every) || save_agreed_) save();
  }
  return finish(/*stopped=*/false);
}

}  // namespace polysketch
