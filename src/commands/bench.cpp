// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "attention/softmax.hpp"
#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/number_options.hpp"
#include "config/rules.hpp"
#include "device/device.hpp"
#include "distributed/gradient_exchange.hpp"
#include "distributed/world.hpp"
#include "model/cost.hpp"
#include "model/memory.hpp"
#include "support/median.hpp"
#include "support/philox.hpp"
#include "support/standard_streams.hpp"
#include "support/stop_signal.hpp"
#include "support/stopwatch.hpp"
#include "support/units.hpp"
#include "training/adamw.hpp"
#include "training/step.hpp"

namespace polysketch::commands {
namespace {

struct Arguments {
  ConfigArguments config;
  int steps = 5;
  int warmup = 2;
  bool json = false;
};

/// The same random rows again and again.
class RandomBatches final : public BatchSource {
 public:
  RandomBatches(int64_t rows, int64_t context, int64_t vocabulary, uint64_t seed) {
    batch_.rows = rows;
    batch_.context = context;
    batch_.ids.resize(static_cast<size_t>(rows * (context + 1)));
    Philox random(seed, RandomPurpose::test);
    for (int32_t& id : batch_.ids)
      id = static_cast<int32_t>(random.bounded(static_cast<uint64_t>(vocabulary)));
  }
  Batch next() override { return batch_; }
  double seconds_waited() const override { return 0; }

 private:
  Batch batch_;
};

void run_step(const Arguments& arguments) {
  StopSignal::install_to_end();
  const Config config = arguments.config.resolve().config;
  const TrainingConfig& training = config.training;
  const int64_t context = config.data.context, sequences = training.batch_tokens / context;
  // Under a launcher the step is shared, as in training.
  const auto world =
      join_launched_world(config.distributed, training.device, training.threads,
                          [&](const Place& place) { require_valid_world(config, place.world); });
  const at::Device device = world->device();
  const int64_t own =
      sequences /
      (config.distributed.reduce == Reduce::canonical ? config.distributed.shards : world->size());
  const int64_t rows = micro_batch_rows(training, context, own, device.is_cuda());
  const bool sharded = config.distributed.shard_optimizer;
  require_training_memory(config, rows, world->available_memory(), sharded ? world->size() : 1);
  Transformer::Options options = transformer_options(config, device);
  options.sharding = {
      .rank = world->rank(),
      .world = world->size(),
      .bucket_elements = config.distributed.bucket_bytes / static_cast<int64_t>(sizeof(float)),
      .masters = sharded};
  Transformer model(options);
  AdamW optimizer(model.parameters(), config.optimizer, sharded ? &world->collectives() : nullptr);
  const auto exchange =
      make_gradient_exchange(model.parameters(), world->collectives(), config.distributed);
  TrainingStep training_step(model, optimizer, *exchange, *world,
                             {training.batch_tokens, context, rows}, options.seed);
  RandomBatches batches(rows, context, config.model.vocabulary, options.seed);

  std::vector<double> seconds, hidden;
  double loss = 0;
  for (int step = 0; step < arguments.warmup + arguments.steps; ++step) {
    const Stopwatch watch;
    const StepResult result = training_step.compute(batches, step, {});
    if (result.error) std::rethrow_exception(result.error);
    if (result.failed)
      throw UserError(ExitCode::distributed, "another process has met an error in its step");
    training_step.apply(result, 1e-4, step);
    synchronize(device);
    const double taken = watch.seconds();
    loss = result.loss;
    if (step < arguments.warmup) continue;
    seconds.push_back(taken);
    if (exchange->times().communication > 0) hidden.push_back(exchange->times().hidden_share());
  }
  if (!world->leads()) return;
  const double middle = median(seconds),
               speed = static_cast<double>(training.batch_tokens) / middle;
  const ModelCost cost =
      model_cost(config.model, config.attention, training.precision, context, rows * context);
  const double peak = peak_flops(device, options.compute);
  const ModelConfig& m = config.model;
  const std::string backend =
      config.attention.kind == AttentionKind::softmax
          ? softmax_backend(at::empty({1, m.heads, context, m.width / m.heads},
                                      at::TensorOptions().device(device).dtype(options.compute)))
          : "own";
  nlohmann::ordered_json json{
      {"tokens_per_second", speed},
      {"seconds_per_step", middle},
      {"seconds_min", *std::min_element(seconds.begin(), seconds.end())},
      {"seconds_max", *std::max_element(seconds.begin(), seconds.end())},
      {"steps", arguments.steps},
      {"peak_bytes", peak_memory_bytes(device)},
      {"parameters", cost.parameters},
      {"flops_per_token", cost.flops_per_token},
      {"flops_per_token_causal", cost.flops_per_token_causal},
      {"flops_per_second", cost.flops_per_token * speed},
      {"mfu", nullptr},
      {"loss", loss},
      {"context", context},
      {"batch_tokens", training.batch_tokens},
      {"micro_batch_tokens", rows * context},
      {"precision", training.precision == Precision::bf16 ? "bf16" : "fp32"},
      {"attention", to_json(config).at("attention").at("kind")},
      {"attention_backend", backend},
      {"processes", world->size()},
      {"threads", at::get_num_threads()},
      {"device", device_name(device)}};
  if (!hidden.empty()) json["communication_hidden"] = median(hidden);
  if (peak > 0)
    json["mfu"] = cost.flops_per_token * speed / peak / static_cast<double>(world->size());
  if (arguments.json) return print_json(json, -1);
  print(fmt::format(
      "{} tokens/s, {} a step of {} tokens (median of {}, {} to {}), {:.3g} FLOP/s, peak {}, {}\n",
      format_count(static_cast<int64_t>(speed)), format_moment(middle),
      format_count(training.batch_tokens), arguments.steps,
      format_moment(json["seconds_min"].get<double>()),
      format_moment(json["seconds_max"].get<double>()), cost.flops_per_token * speed,
      format_bytes(peak_memory_bytes(device)), device_name(device)));
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Measure speed and memory");
  command->require_subcommand(1);
  CLI::App* step =
      command->add_subcommand("step", "One training step on random tokens; needs no data");
  auto arguments = std::make_shared<Arguments>();
  add_config_arguments(*step, arguments->config);
  add_count(*step, "--steps", arguments->steps, 1, 100'000, "steps that are timed");
  add_count(*step, "--warmup", arguments->warmup, 0, 100'000, "steps before them");
  step->add_flag("--json", arguments->json, "print one JSON object");
  step->callback([arguments] { run_step(*arguments); });
  add_bench_attention(*command);
  add_bench_distributed(*command);
}

}  // namespace polysketch::commands
