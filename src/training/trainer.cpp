// SPDX-License-Identifier: Apache-2.0
#include "training/trainer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "device/device.hpp"
#include "distributed/replica_check.hpp"
#include "evaluation/perplexity.hpp"
#include "evaluation/samples.hpp"
#include "support/log.hpp"
#include "support/stop_signal.hpp"
#include "support/system_error.hpp"
#include "training/diagnostics.hpp"
#include "training/learning_rate.hpp"
#include "training/run_checkpoint.hpp"
#include "training/step_record.hpp"

namespace polysketch {
namespace fs = std::filesystem;

void Trainer::record(const std::string& event, nlohmann::ordered_json fields) {
  const MetricRecord row{event, state_.step, state_.tokens, std::move(fields)};
  for (const auto& sink : sinks_) sink->record(row);
}

int64_t Trainer::sequences_per_sum() const {
  return sequences_per_step_ / (canonical() ? config_.distributed.shards : world_->size());
}

bool Trainer::train_step() {
  const Stopwatch watch;
  world_->at_step(state_.step + 1);
  const int64_t minutes = config_.checkpoint.minutes, looks = config_.logging.diagnostics;
  const bool save = world_->leads() && minutes > 0 &&
                    since_save_.seconds() >= 60.0 * static_cast<double>(minutes);
  const bool probe = looks > 0 && (state_.step + 1) % looks == 0;
  const StepResult result = step_->compute(*batches_, state_.step, {.save = save, .probe = probe});
  if (!result.happened) return false;
  if (result.failed) end_together(result.error);
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
    throw UserError(ExitCode::numeric,
                    fmt::format("step {}: loss {} and gradient norm {} are not finite (sequences "
                                "{} to {}); no update was made, the last checkpoint is untouched: "
                                "lower schedule.peak, lengthen schedule.warmup or use "
                                "training.precision: fp32",
                                state_.step + 1, result.loss, result.gradient_norm,
                                state_.sequences, state_.sequences + sequences_per_step_ - 1));
  }
  const double rate = learning_rate(config_.schedule, state_.step, config_.training.steps);
  updating_ = true;
  step_->apply(result, rate, state_.step);
  updating_ = false;
  state_.advance(sequences_per_step_, config_.data.context, result.digest);
  record_step(result, watch.seconds(), rate);
  after_update(result);
  return true;
}

void Trainer::record_step(const StepResult& result, double seconds, double rate) {
  record("step", step_fields(result, {.seconds = seconds,
                                      .learning_rate = rate,
                                      .batch_tokens = config_.training.batch_tokens,
                                      .processes = world_->size(),
                                      .peak_flops = peak_flops(device_, model_->options().compute) *
                                                    static_cast<double>(world_->size()),
                                      .cost = cost_,
                                      .exchange = exchange_->times(),
                                      .peak_bytes = peak_memory_bytes(device_),
                                      .digest = state_.digest,
                                      .epoch = batches_->epoch()}));
  if (result.probe) record("diagnostics", diagnostics_fields(*model_, *result.probe));
}

// What only several processes have to look after. Decisions come from what all have agreed on.
void Trainer::after_update(const StepResult& result) {
  save_agreed_ = result.save;
  stop_agreed_ = result.stop;
  if (alone()) return;
  // All wait for the slowest, and that one for nobody: the shortest of the times is that of the
  // exchanges alone. Those that begin while backward runs are measured by the exchange itself.
  const GradientExchange::Times times = exchange_->times();
  std::vector<double> waited{times.communication > 0 ? times.communication : result.exchanging};
  if (stragglers_) {
    world_->collectives().all_reduce(waited, ReduceOperation::min, "time of exchanges");
    if (const auto who = stragglers_->look(result.computing, waited[0]); who && world_->leads())
      log_warning("straggler: " + *who);
  }
  const int64_t every = config_.distributed.check_replicas;
  if (every > 0 && state_.step % every == 0) require_equal_replicas(*world_, model_->parameters());
}

bool Trainer::evaluate() {
  for (const auto& evaluator : evaluators_) {
    if (!state_.is_due(evaluator->name(), evaluator->every(), config_.training.steps)) continue;
    std::optional<Evaluator::Result> result;
    try {
      result = evaluator->run();
    } catch (const FailedElsewhere&) {
      end_together(nullptr);
    } catch (const UserError& error) {
      if (alone() || error.code() == ExitCode::distributed) throw;
      end_together(std::current_exception());
    }
    if (!result) return false;
    EvaluationState& progress = state_.evaluations[evaluator->name()];
    progress.note(state_.step, result->value);
    result->fields["best_loss"] = progress.best_value;
    record(evaluator->event(), std::move(result->fields));
    if (config_.evaluation.samples > 0 && evaluator->event() == "validation") write_samples();
  }
  return true;
}

void Trainer::write_samples() {
  world_->be_patient(true);  // the others wait for the first
  if (world_->leads()) {
    try {
      const auto samples = draw_samples(*model_, *tokenizer_,
                                        {.prompt = {},
                                         .count = config_.evaluation.samples,
                                         .context = config_.data.context,
                                         .stop = [] { return StopSignal::requested(); }});
      const std::string before = read_samples(run_folder_).value_or("");
      keep_samples(run_folder_,
                   add_samples(without_later_samples(before, state_.step), state_.step, samples));
    } catch (const UserError& error) {  // texts are worth less than the run
      log_warning(fmt::format("step {}: no samples: {}", state_.step, error.what()));
    }
  }
  if (!alone()) world_->collectives().all_gather_text("", "samples");
  world_->be_patient(false);
}

ExitCode Trainer::finish(bool stopped) {
  // no training goes on that could save later: a failure is tried again at once
  while (saved_step_ != state_.step) save();
  record(stopped ? "stop" : "end", {{"token_digest", digest_text(state_.digest)}});
  for (const auto& sink : sinks_) sink->flush();
  if (!stopped) {
    if (world_->leads()) log_info(next_steps(run_folder_));
    return ExitCode::done;
  }
  if (world_->leads()) {
    const int number = StopSignal::number();
    log_info(fmt::format(
        "stopped after step {} by {}, everything saved: the same command continues the run",
        state_.step, number > 0 ? signal_name(number) : "a signal to another process"));
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
  } catch (const std::exception& error) {
    const ErrorReport found = report_of(error);
    end(found.code, found.text.c_str());
    throw;
  }
}

// What a run that ends by an error has done must not be lost with it.
void Trainer::save_before_the_end(const char* cause) {
  if (updating_ || !model_) return;
  record("error", {{"message", cause}});
  for (const auto& sink : sinks_) sink->flush();
  if (state_.step == 0) return;
  // A file that could not be read may be mended: the checkpoint must know which one that was, also
  // where one of this step is there already.
  if (alone()) unreadable_files_ = corpus_->unreadable();
  const bool news = training_files_.note_unreadable(unreadable_files_);
  if (saved_step_ == state_.step && !news) return;
  saved_step_ = -1;
  if (save_attempts_.failed_before()) return save_beside();
  try {
    save();
    if (saved_step_ == state_.step && world_->leads())
      log_info(fmt::format("step {} is saved: the same command continues there", state_.step));
  } catch (const std::exception& error) {
    log_warning(fmt::format("step {} could not be saved: {}", state_.step, error.what()));
  }
}

// The folder of the run takes no checkpoint; one beside it may.
void Trainer::save_beside() {
  const std::string before = run_folder_;
  std::string cause;
  try {
    move_beside(before);
    save_attempts_ = SaveAttempts(/*speaks=*/false);
    save();
    if (saved_step_ == state_.step) {
      log_info(fmt::format("step {} is saved in {}: continue there with --set run.directory={}",
                           state_.step, run_folder_, run_folder_));
      return;
    }
  } catch (const std::exception& error) {
    cause = fmt::format(": {}", error.what());
  }
  if (run_folder_ == before) return;
  log_warning(
      fmt::format("step {} could not be saved beside {} either{}", state_.step, before, cause));
  std::error_code ignored;
  fs::remove_all(std::exchange(run_folder_, before), ignored);
  attach_log_file(log_path());
}

void Trainer::end_together(const std::exception_ptr& own) {
  std::string said;
  if (own) {
    try {
      std::rethrow_exception(own);
    } catch (const std::exception& error) {
      const ErrorReport found = report_of(error);
      said = fmt::format("{} {}", static_cast<int>(found.code), found.text);
    }
  }
  const auto all = world_->collectives().all_gather_text(said, "an error");
  const auto first = static_cast<size_t>(
      std::find_if(all.begin(), all.end(), [](const auto& text) { return !text.empty(); }) -
      all.begin());
  require(first < all.size(), "a step has failed and nobody says why");
  const std::string text = all[first].substr(all[first].find(' ') + 1);
  // Every process knows of the files that it has read itself.
  for (const std::string& names : world_->collectives().all_gather_text(
           fmt::format("{}", fmt::join(corpus_->unreadable(), std::string(1, '\0'))),
           "files that cannot be read")) {
    for (size_t at = 0; at < names.size();) {
      const size_t end = std::min(names.find('\0', at), names.size());
      unreadable_files_.insert(names.substr(at, end - at));
      at = end + 1;
    }
  }
  save_before_the_end(text.c_str());
  if (own) std::rethrow_exception(own);
  throw UserError(static_cast<ExitCode>(std::atoi(all[first].c_str())),
                  fmt::format("{}: {}", world_->name_of(static_cast<int64_t>(first)), text));
}

void Trainer::check_folder() {
  since_folder_check_.restart();
  const auto place = folder_->place();
  if (place && *place == fs::path(run_folder_)) return stay_in_folder();
  const std::string before = run_folder_;
  if (!place) save_elsewhere(before);
  run_folder_ = place->string();
  checkpoints_ = std::make_unique<CheckpointStore>(run_folder_, config_.checkpoint, peers());
  world_->dump_into(run_folder_);
  if (world_->leads())
    log_warning(
        fmt::format("{}: the run folder was renamed: it is {} from here on", before, run_folder_));
  stay_in_folder();
}

// Somebody may have removed a file of the run.
void Trainer::stay_in_folder() {
  for (const auto& sink : sinks_) sink->stay_in(run_folder_);
  std::error_code error;
  if (!log_is_there_ || fs::exists(log_path(), error) || error) return;
  attach_log_file(log_path());
  // One that cannot be made again is told once, not each second.
  log_is_there_ = fs::exists(log_path(), error);
  if (log_is_there_) log_warning(fmt::format("{}: was removed: it begins anew", log_path()));
}

void Trainer::move_beside(const std::string& before) {
  run_folder_ = exchange(peers(), [&] { return rescue_folder(before).string(); })[0];
  folder_ = std::make_unique<RunFolder>(run_folder_, peers());
  folder_->take();
  folder_->keep();
  checkpoints_ = std::make_unique<CheckpointStore>(run_folder_, config_.checkpoint, peers());
  world_->dump_into(run_folder_);
  config_.run.directory = run_folder_;
  if (world_->leads()) write_description(to_yaml(config_));
  for (const auto& sink : sinks_) sink->stay_in(run_folder_);
  attach_log_file(log_path());
  saved_step_ = -1;
}

void Trainer::save_elsewhere(const std::string& before) {
  move_beside(before);
  save();
  throw UserError(
      ExitCode::cannot_create,
      fmt::format("{}: the run folder was removed or replaced while the run trained; step {} is "
                  "saved in {}: continue there with --set run.directory={}, or delete it",
                  before, state_.step, run_folder_, run_folder_));
}

ExitCode Trainer::train() {
  if (step_ == nullptr) return ExitCode::done;  // the set-up found nothing to do
  const auto due = [&](int64_t every) { return every > 0 && state_.step % every == 0; };
  if (!evaluate()) return finish(/*stopped=*/true);  // what a stop had interrupted
  while (state_.step < config_.training.steps) {
    if ((alone() && StopSignal::requested()) || !train_step()) return finish(/*stopped=*/true);
    if (!alone() && stop_agreed_) return finish(/*stopped=*/true);
    if (alone() && since_folder_check_.seconds() > 1) check_folder();
    if (!evaluate()) return finish(/*stopped=*/true);
    if (due(config_.checkpoint.every) || save_agreed_) save();
  }
  return finish(/*stopped=*/false);
}

}  // namespace polysketch
