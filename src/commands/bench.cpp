// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>

#include "attention/softmax.hpp"
#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/number_options.hpp"
#include "config/rules.hpp"
#include "distributed/gradient_reducer.hpp"
#include "distributed/world.hpp"
#include "model/cost.hpp"
#include "model/device.hpp"
#include "model/memory.hpp"
#include "support/median.hpp"
#include "support/philox.hpp"
#include "support/standard_streams.hpp"
#include "support/stop_signal.hpp"
#include "support/units.hpp"
#include "training/adamw.hpp"
#include "training/trainer.hpp"

namespace polysketch::commands {
namespace {

struct Arguments {
  ConfigArguments config;
  int steps = 5;
  int warmup = 2;
  bool json = false;
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
  const int64_t own = sequences / world->size();
  const int64_t rows = micro_batch_rows(training, context, own, device.is_cuda());
  const bool sharded = config.distributed.shard_optimizer;
  require_training_memory(config, rows, world->available_memory(), sharded ? world->size() : 1);
  Transformer::Options options;
  options.sharding = {
      .rank = world->rank(),
      .world = world->size(),
      .bucket_elements = config.distributed.bucket_bytes / static_cast<int64_t>(sizeof(float)),
      .masters = sharded};
  options.model = config.model;
  options.attention = config.attention;
  options.device = device;
  options.compute = training.precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
  options.seed = static_cast<uint64_t>(config.run.seed);
  Transformer model(options);
  AdamW optimizer(model.parameters(), config.optimizer, sharded ? &world->collectives() : nullptr);
  GradientReducer reducer(model.parameters(), world->collectives(), config.distributed.reduce_type,
                          sharded);
  const auto ready = [&](size_t parameter) { reducer.ready(parameter); };

  Philox random(options.seed, RandomPurpose::test);
  at::Tensor ids = at::empty({rows, context + 1}, at::kLong);
  for (int64_t i = 0; i < ids.numel(); ++i)
    ids.data_ptr<int64_t>()[i] =
        static_cast<int64_t>(random.bounded(static_cast<uint64_t>(config.model.vocabulary)));
  ids = ids.to(device);
  const ModelInput input{.ids = ids.narrow(1, 0, context).contiguous(),
                         .targets = ids.narrow(1, 1, context).contiguous(),
                         .documents = {},
                         .dropout = {}};

  std::vector<double> seconds, hidden;
  double loss = 0;
  for (int step = 0; step < arguments.warmup + arguments.steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    at::Tensor nats = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(device));
    for (int64_t done = 0; done < own; done += rows) {
      const bool last = world->size() > 1 && done + rows >= own;
      if (last) reducer.begin();
      nats += model.forward_backward(input, 1.0 / static_cast<double>(training.batch_tokens),
                                     last ? std::function<void(size_t)>(ready) : nullptr);
    }
    if (world->size() > 1) reducer.finish();
    optimizer.step(1e-4, step + 1);
    loss = nats.item<double>() / static_cast<double>(own * context);  // of this process's part
    synchronize(device);
    const double taken =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (step < arguments.warmup) continue;
    seconds.push_back(taken);
    if (reducer.times().communication > 0) hidden.push_back(reducer.times().hidden_share());
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
