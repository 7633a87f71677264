// SPDX-License-Identifier: Apache-2.0
#include "planning/plan_measured.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "config/load.hpp"
#include "model/cost.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"

namespace polysketch::commands {
namespace {

using nlohmann::json;

json read_json(const std::string& path, const char* made_by) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const UserError& error) {
    throw UserError(error.code(),
                    fmt::format("{}: give a file that '{}' printed", error.what(), made_by));
  }
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object())
    throw UserError(
        ExitCode::bad_data,
        fmt::format("{}: is not one JSON object: give a file that '{}' printed", path, made_by));
  return value;
}

[[noreturn]] void refuse(const std::string& file, const std::string& what, const char* made_by) {
  throw UserError(ExitCode::bad_data,
                  fmt::format("{}: {}: give a file that '{}' printed", file, what, made_by));
}

constexpr const char* kStep = "polysketch bench step --json";
constexpr const char* kCollectives = "polysketch bench collectives --json";

double positive(const json& object, const char* key, const std::string& file, const char* made_by) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number() || !(found->get<double>() > 0))
    refuse(file, fmt::format("{} is not a number above 0", key), made_by);
  return found->get<double>();
}

}  // namespace

MeasuredStep read_measured_step(const std::string& file, const Config& config) {
  const json step = read_json(file, kStep);
  MeasuredStep measured;
  measured.seconds = positive(step, "seconds_per_step", file, kStep);
  measured.batch_tokens = positive(step, "batch_tokens", file, kStep);
  measured.micro_batch_tokens =
      static_cast<int64_t>(std::min(positive(step, "micro_batch_tokens", file, kStep), 9e18));
  if (const auto device = step.find("device"); device != step.end() && device->is_string())
    measured.device = device->get<std::string>();

  const ModelCost cost = model_cost(config.model, config.attention, config.training.precision,
                                    config.data.context, config.data.context);
  const json ours{{"parameters", cost.parameters},
                  {"context", config.data.context},
                  {"precision", config.training.precision == Precision::bf16 ? "bf16" : "fp32"},
                  {"attention", to_json(config).at("attention").at("kind")}};
  for (const auto& [key, value] : ours.items()) {
    if (step.value(key, json()) == value) continue;
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: was measured with {} {}, the configuration has {}: run 'bench "
                                "step' with this configuration",
                                file, key, step.value(key, json()).dump(), value.dump()));
  }
  if (const json processes = step.value("processes", json(1)); processes != 1) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: was measured on {} processes: run 'bench step' alone, so that "
                                "no exchange is in its time",
                                file, processes.dump()));
  }
  const double flops = positive(step, "flops_per_token", file, kStep);
  if (std::abs(flops / cost.flops_per_token - 1) > 1e-9) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: was measured with {:.6g} FLOPs a token, the configuration has "
                                "{:.6g}: run 'bench step' with "
                                "this configuration",
                                file, flops, cost.flops_per_token));
  }
  return measured;
}

MeasuredCollectives read_measured_collectives(const std::string& file) {
  const json all = read_json(file, kCollectives);
  MeasuredCollectives measured;
  const double world = positive(all, "world", file, kCollectives);
  if (world < 2 || world != std::floor(world) || world > 1e9)
    refuse(file, "world is not a whole number of at least 2 processes", kCollectives);
  measured.world = static_cast<int64_t>(world);
  if (!all.contains("transport") || !all["transport"].is_string())
    refuse(file, "transport is missing", kCollectives);
  measured.transport = all["transport"].get<std::string>();
  if (!all.contains("sizes") || !all["sizes"].is_array())
    refuse(file, "sizes is not a list", kCollectives);

  std::vector<MeasuredExchange> exchanges;
  std::set<double> sizes;
  for (const json& size : all["sizes"]) {
    if (!size.is_object()) refuse(file, "an entry of sizes is not an object", kCollectives);
    const double bytes = positive(size, "bytes", file, kCollectives);
    for (const auto& [key, passes] :
         {std::pair("all_reduce_seconds", 2), std::pair("reduce_scatter_seconds", 1),
          std::pair("all_gather_seconds", 1)}) {
      if (!size.contains(key) || size[key].is_null()) continue;
      exchanges.push_back({passes, bytes, positive(size, key, file, kCollectives)});
      sizes.insert(bytes);
    }
  }
  if (sizes.size() < 2)
    refuse(file, "two sizes at least are needed to tell latency from bandwidth", kCollectives);
  try {
    measured.fit = fit_link(measured.world, exchanges);
  } catch (const UserError& error) {
    throw UserError(error.code(), file + ": " + error.what());
  }
  return measured;
}

}  // namespace polysketch::commands
