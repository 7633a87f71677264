// SPDX-License-Identifier: Apache-2.0
#include "planning/cluster_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "config/rules.hpp"
#include "device/accelerator.hpp"
#include "model/cost.hpp"
#include "model/parameters.hpp"
#include "planning/cluster_cost.hpp"
#include "planning/plan_measured.hpp"
#include "support/error.hpp"
#include "support/units.hpp"
#include "training/trainer.hpp"

namespace polysketch::commands {
namespace {

using nlohmann::ordered_json;

/// Everything a prediction rests on but the numbers of nodes and tokens.
struct Basis {
  const Config& config;
  const Accelerator& gpu;
  Cluster cluster;
  ReductionPlan plan;
  ModelCost cost;  ///< of one sequence; its activations are not used
  WorkOrder order;
  double memory_bandwidth = 0;
  double seconds_per_flop = 0;
  bool bf16 = true;
  ordered_json assumptions = ordered_json::array();
  void assume(const std::string& text, const std::string& flag) {
    assumptions.push_back(
        {{"assumption", text}, {"changed_by", flag.empty() ? ordered_json() : ordered_json(flag)}});
  }
};

void set_links(Basis& basis, const ClusterArguments& arguments) {
  Cluster& cluster = basis.cluster;
  cluster = {.nodes = arguments.nodes,
             .gpus = arguments.gpus,
             .inside = {},
             .between = {},
             .route = Route::hierarchical};
  if (arguments.route == "ring") cluster.route = Route::ring;
  const bool many = arguments.nodes > 1, measured = !arguments.collectives.empty();
  const double one = arguments.interconnect, latency = arguments.latency,
               inside_latency = arguments.intranode_latency;
  const double both = arguments.intranode > 0 ? arguments.intranode : basis.gpu.link_bandwidth;
  // the link inside is as given or as the data sheet says
  const bool inside = arguments.gpus > 1 && (many || !measured);
  if (measured) {
    const MeasuredCollectives collectives = read_measured_collectives(arguments.collectives);
    (many ? cluster.between : cluster.inside) = collectives.fit.link;
    basis.assume(fmt::format("link {}: {} a direction and {} a message, fitted to {} among {} "
                             "processes ({:.1f} % off, root mean square)",
                             many ? "between nodes, of a whole node" : "inside the node, of a GPU",
                             format_bandwidth(collectives.fit.link.bandwidth),
                             format_moment(collectives.fit.link.latency), collectives.transport,
                             collectives.world, 100 * collectives.fit.error),
                 "--collectives");
  } else if (many) {
    if (one == 0)
      throw UserError(ExitCode::usage,
                      "--interconnect: say what a link between nodes carries, like 400Gb, or give "
                      "--collectives FILE");
    cluster.between = {latency, one * static_cast<double>(arguments.links)};
    basis.assume(
        fmt::format(
            "link between nodes, of a whole node: {} a direction ({} of {}), reached in full",
            format_bandwidth(cluster.between.bandwidth), arguments.links, format_bandwidth(one)),
        "--interconnect, --links, --collectives");
    basis.assume(
        fmt::format("a message between nodes takes {} besides its bytes", format_moment(latency)),
        "--latency, --collectives");
  }
  if (inside) {
    cluster.inside = {inside_latency, both / 2};
    basis.assume(
        fmt::format(
            "link inside a node, of a GPU: {} a direction ({} both ways{}), reached in full",
            format_bandwidth(both / 2), format_bandwidth(both),
            arguments.intranode > 0 ? "" : ", data sheet"),
        "--intranode");
    basis.assume(fmt::format("a message inside a node takes {} besides its bytes",
                             format_moment(inside_latency)),
                 "--intranode-latency");
  }
  const std::pair<const char*, bool> unused[] = {
      {"--interconnect", !many}, {"--links", !many},
      {"--latency", !many},      {"--route", !many || arguments.gpus == 1},
      {"--intranode", !inside},  {"--intranode-latency", !inside}};
  for (const auto& [flag, idle] : unused) {
    if (idle && arguments.wrote(flag))
      basis.assume(fmt::format("{}: nothing goes that way here, so it changes nothing", flag),
                   "--nodes, --gpus");
  }
  if (many && arguments.gpus > 1) {
    basis.assume(cluster.route == Route::ring ? "one ring through all GPUs; the sums cost nothing"
                                              : "exchanges inside each node first, then between "
                                                "nodes, then inside again; the sums cost nothing",
                 "--route");
  } else if (cluster.world() > 1) {
    basis.assume("exchanges go round a ring; the sums cost nothing", "");
  }
}

void set_rate(Basis& basis, const ClusterArguments& arguments, double tokens_per_second) {
  const double flops = basis.order.flops_per_token();
  const std::string same = "; every piece of the model at the same FLOP/s, on every GPU";
  if (!arguments.step.empty()) {
    const MeasuredStep step = read_measured_step(arguments.step, basis.config);
    const double optimizer =
        optimizer_bytes(basis.cost.parameters, basis.bf16, 1) / basis.memory_bandwidth;
    const double seconds = step.seconds - optimizer;
    if (!(seconds > 0))
      throw UserError(ExitCode::bad_data,
                      fmt::format("{}: a step of {} is shorter than the optimiser alone at "
                                  "--memory-bandwidth {}: give the "
                                  "bandwidth of the device that was measured",
                                  arguments.step, format_moment(step.seconds),
                                  format_bandwidth(basis.memory_bandwidth)));
    basis.seconds_per_flop = seconds / (step.batch_tokens * flops);
    basis.assume(fmt::format("compute: {} for {:.0f} tokens, measured on {} in micro-batches of "
                             "{}, less {} for the optimiser{}",
                             format_moment(step.seconds), step.batch_tokens,
                             step.device.empty() ? "an unnamed device" : step.device,
                             step.micro_batch_tokens, format_moment(optimizer), same),
                 "--step");
  } else if (tokens_per_second > 0) {
    basis.seconds_per_flop = 1 / (tokens_per_second * flops);
    basis.assume(
        fmt::format(
            "compute: {} tokens/s of one GPU, as given, taken as forward and backward alone{}",
            format_count(static_cast<int64_t>(tokens_per_second)), same),
        "--tokens-per-second");
  } else {
    const double peak = basis.bf16 ? basis.gpu.bf16_flops : basis.gpu.fp32_flops;
    basis.seconds_per_flop = 1 / (peak * arguments.mfu);
    basis.assume(
        fmt::format(
            "compute: {:g} % of the {:.0f} TFLOP/s ({}) of one {}, all T x T pairs counted{}",
            100 * arguments.mfu, peak / 1e12, basis.bf16 ? "bf16" : "fp32", basis.gpu.name, same),
        "--mfu, --gpu, --tokens-per-second, --step");
  }
}

struct Prediction {
  /// sequences of a micro-batch; micro-batches of a step on one GPU
  int64_t rows = 0, micro_batches = 0;
  StepCost step;
  double tokens_per_second = 0;
};

Prediction predict(const Basis& basis, const Cluster& cluster, int64_t batch_tokens) {
  const int64_t context = basis.config.data.context,
                sequences = batch_tokens / context / cluster.world();
  Prediction result;
  result.rows = micro_batch_rows(basis.config.training, context, sequences,
                                 basis.config.training.device != "cpu");
  result.micro_batches = (sequences + result.rows - 1) / result.rows;
  const double last =
      static_cast<double>((sequences - (result.micro_batches - 1) * result.rows) * context) *
      basis.seconds_per_flop;
  StepWork work;
  double backward_flops = 0;
  for (const WorkPiece& piece : basis.order.backward) {
    work.backward.push_back({piece.flops_per_token * last, piece.gradients});
    backward_flops += piece.flops_per_token;
  }
  work.before = static_cast<double>(sequences * context) * basis.seconds_per_flop *
                    basis.order.flops_per_token() -
                backward_flops * last;
  ReductionPlan plan = basis.plan;
  plan.unit = bucket_unit(cluster.world());
  // the key counts fp32
  plan.bucket_elements = bucket_step(basis.config.distributed.bucket_bytes / 4, cluster.world());
  work.optimizer =
      optimizer_bytes(basis.cost.parameters, basis.bf16, basis.plan.sharded ? cluster.world() : 1) /
      basis.memory_bandwidth;
  result.step = step_cost(work, plan, cluster);
  result.tokens_per_second = static_cast<double>(batch_tokens) / result.step.step;
  return result;
}

ordered_json memory_json(const GpuMemory& memory) {
  return {{"weight_bytes", memory.weights},
          {"gradient_bytes", memory.gradients},
          {"optimizer_bytes", memory.optimizer},
          {"activation_bytes", memory.activations},
          {"total_bytes", memory.total()}};
}

ordered_json scaling_json(const Basis& basis) {
  const Cluster& full = basis.cluster;
  std::vector<std::pair<int64_t, int64_t>> shapes;  // nodes, GPUs of each
  for (int64_t gpus = 1; gpus < full.gpus; gpus *= 2) shapes.emplace_back(1, gpus);
  for (int64_t nodes = 1; nodes < full.nodes; nodes *= 2) shapes.emplace_back(nodes, full.gpus);
  shapes.emplace_back(full.nodes, full.gpus);
  const int64_t batch = basis.config.training.batch_tokens,
                sequences = batch / basis.config.data.context;
  const int64_t share = batch / full.world();
  ordered_json json{{"strong", ordered_json::array()}, {"weak", ordered_json::array()}};
  for (const bool strong : {true, false}) {
    const double alone = predict(basis, Cluster{}, strong ? batch : share).tokens_per_second;
    for (const auto& [nodes, gpus] : shapes) {
      Cluster cluster = full;
      cluster.nodes = nodes;
      cluster.gpus = gpus;
      if (strong && sequences % cluster.world() != 0) continue;
      const int64_t tokens = strong ? batch : share * cluster.world();
      const Prediction one = predict(basis, cluster, tokens);
      json[strong ? "strong" : "weak"].push_back(
          {{"gpus", cluster.world()},
           {"nodes", nodes},
           {"batch_tokens", tokens},
           {"step_seconds", one.step.step},
           {"exposed_seconds", one.step.exposed},
           {"tokens_per_second", one.tokens_per_second},
           {"efficiency", one.tokens_per_second / alone / static_cast<double>(cluster.world())}});
    }
  }
  return json;
}

ordered_json link_json(const Link& link) {
  if (!std::isfinite(link.bandwidth)) return nullptr;  // nothing travels there
  return {{"latency_seconds", link.latency}, {"bytes_per_second", link.bandwidth}};
}

void assume_the_rest(Basis& basis, const Prediction& prediction) {
  const DistributedConfig& distributed = basis.config.distributed;
  basis.assume(
      fmt::format("optimiser: {:g} bytes a parameter at {}, memory bandwidth reached in full",
                  optimizer_bytes(basis.cost.parameters, basis.bf16,
                                  basis.plan.sharded ? basis.cluster.world() : 1) /
                      static_cast<double>(basis.cost.parameters),
                  format_bandwidth(basis.memory_bandwidth)),
      "--memory-bandwidth, --gpu");
  if (basis.cluster.world() > 1) {
    basis.assume(
        fmt::format(
            "only the backward of the last of {} micro-batches ({} tokens) hides communication",
            prediction.micro_batches, prediction.rows * basis.config.data.context),
        "--set training.micro_batch_tokens");
    basis.assume(fmt::format("exchanges beside backward run at {:g} times their own speed and do "
                             "not slow it down; one at a time",
                             basis.plan.overlap),
                 "--overlap");
    const bool narrow = distributed.reduce_type == ReduceType::bf16,
               canonical = basis.plan.canonical_shards > 0;
    basis.assume(fmt::format("gradients travel in {}, in {} buckets of about {}; those of the "
                             "embedding are complete last, so always exposed",
                             narrow && !canonical ? "bf16" : "fp32", prediction.step.buckets.size(),
                             format_bytes(distributed.bucket_bytes)),
                 "--set distributed.reduce_type, distributed.bucket_bytes");
    if (canonical)
      basis.assume(
          fmt::format("canonical reduction: the gradients of all {} shards travel, after backward",
                      basis.plan.canonical_shards),
          "--set distributed.reduce=fast");
    basis.assume(basis.plan.sharded ? "sharded optimiser: the all-gather of the masters (fp32), "
                                      "bucket by bucket, hides behind nothing"
                                    : "optimiser not sharded: each GPU updates everything",
                 "--set distributed.shard_optimizer");
  }
  basis.assume("data never has to be waited for; no stragglers, no faults", "");
  basis.assume("whole run: steps alone, without start, validation and checkpoints", "");
  basis.assume("memory: without what NCCL, cuBLAS and the allocator keep for themselves", "");
}

}  // namespace

ordered_json cluster_plan(const Config& config, const ClusterArguments& arguments,
                          double tokens_per_second) {
  const int64_t world = arguments.nodes * arguments.gpus, context = config.data.context;
  require_valid_world(config, world);
  const bool bf16 = config.training.precision == Precision::bf16;
  Basis basis{
      .config = config,
      .gpu = *find_accelerator(arguments.gpu),
      .cluster = {},
      .plan = {.bucket_elements = 0,  // depends on the number of processes
               .unit = 1,
               .element_bytes = config.distributed.reduce_type == ReduceType::bf16 ? 2.0 : 4.0,
               .sharded = config.distributed.shard_optimizer,
               .canonical_shards =
                   config.distributed.reduce == Reduce::canonical ? config.distributed.shards : 0,
               .overlap = arguments.overlap},
      .cost =
          model_cost(config.model, config.attention, config.training.precision, context, context),
      .order = work_order(config.model, config.attention, context),
      .bf16 = bf16};
  basis.memory_bandwidth =
      arguments.memory_bandwidth > 0 ? arguments.memory_bandwidth : basis.gpu.memory_bandwidth;
  set_rate(basis, arguments, tokens_per_second);
  set_links(basis, arguments);
  const Prediction here = predict(basis, basis.cluster, config.training.batch_tokens);
  const double alone = predict(basis, Cluster{}, config.training.batch_tokens).tokens_per_second;
  assume_the_rest(basis, here);

  const StepCost& step = here.step;
  const double gradient_bytes =
      static_cast<double>(basis.cost.parameters) * basis.plan.element_bytes;
  const int64_t activations = model_cost(config.model, config.attention, config.training.precision,
                                         context, here.rows * context)
                                  .activation_bytes;
  const int64_t kept = basis.plan.canonical_shards / world;  // gradients of its own shards
  const double total = here.tokens_per_second, gpus = static_cast<double>(world);
  ordered_json json{
      {"prediction", true},
      {"nodes", arguments.nodes},
      {"gpus_per_node", arguments.gpus},
      {"gpus", world},
      {"gpu", basis.gpu.name},
      {"batch_tokens", config.training.batch_tokens},
      {"micro_batch_tokens", here.rows * context},
      {"micro_batches", here.micro_batches},
      {"flops_per_second_per_gpu", 1 / basis.seconds_per_flop},
      {"link_between_nodes", link_json(basis.cluster.between)},
      {"link_inside_node", link_json(basis.cluster.inside)},
      {"route", arguments.route},
      {"sharded_optimizer", basis.plan.sharded},
      {"gradient_bytes", gradient_bytes},
      {"buckets", step.buckets.size()},
      {"all_reduce_seconds", all_reduce_seconds(basis.cluster, gradient_bytes)},
      {"reduce_scatter_seconds", reduce_scatter_seconds(basis.cluster, gradient_bytes)},
      {"all_gather_seconds",
       all_gather_seconds(basis.cluster, 4 * static_cast<double>(basis.cost.parameters))},
      {"compute_seconds", step.compute},
      {"communication_seconds", step.communication},
      {"hidden_seconds", step.hidden},
      {"exposed_seconds", step.exposed},
      {"hidden_fraction",
       step.communication > 0 ? ordered_json(step.hidden / step.communication) : ordered_json()},
      {"optimizer_seconds", step.optimizer},
      {"parameter_gather_seconds", step.gather},
      {"data_wait_seconds", 0},
      {"step_seconds", step.step},
      {"tokens_per_second", total},
      {"tokens_per_second_per_gpu", total / gpus},
      {"tokens_per_second_of_one_gpu", alone},
      {"scaling_efficiency", total / gpus / alone},
      {"steps", config.training.steps},
      {"run_seconds", step.step * static_cast<double>(config.training.steps)},
      {"memory_of_a_gpu", basis.gpu.memory_bytes},
      {"memory", memory_json(gpu_memory(basis.cost.parameters, bf16, activations, 1, kept))},
      {"memory_sharded",
       memory_json(gpu_memory(basis.cost.parameters, bf16, activations, world, kept))}};
  json["timeline"] = ordered_json::array();
  for (const Bucket& bucket : step.buckets)
    json["timeline"].push_back({{"elements", bucket.elements},
                                {"ready", bucket.ready},
                                {"start", bucket.start},
                                {"end", bucket.end}});
  if (arguments.scaling) json["scaling"] = scaling_json(basis);
  json["assumptions"] = basis.assumptions;
  return json;
}

}  // namespace polysketch::commands
