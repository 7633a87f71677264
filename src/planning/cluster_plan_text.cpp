// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "planning/cluster_plan.hpp"
#include "support/units.hpp"

namespace polysketch::commands {

using nlohmann::ordered_json;

std::string cluster_plan_text(const ordered_json& plan) {
  const auto number = [&](const char* key) { return plan.at(key).get<double>(); };
  const auto moment = [&](const char* key) { return format_moment(number(key)); };
  const auto bytes = [](const ordered_json& value) {
    return format_bytes(static_cast<int64_t>(value.get<double>()));
  };
  const auto count = [](double value) { return format_count(std::llround(value)); };
  const bool sharded = plan.at("sharded_optimizer").get<bool>();
  std::string text =
      fmt::format("\nprediction, not a measurement: {} x {} {}\n", plan.at("nodes").get<int64_t>(),
                  plan.at("gpus_per_node").get<int64_t>(), plan.at("gpu").get<std::string>());
  const auto line = [&](const char* name, const std::string& what) {
    text += fmt::format("{:<15}{}\n", name, what);
  };
  line("step",
       fmt::format(
           "{} = compute {} + exposed communication {} + optimiser {}{}", moment("step_seconds"),
           moment("compute_seconds"), moment("exposed_seconds"), moment("optimizer_seconds"),
           sharded ? " + all-gather of parameters " + moment("parameter_gather_seconds") : ""));
  line("micro-batches",
       fmt::format("{} of {} tokens on each GPU", plan.at("micro_batches").get<int64_t>(),
                   count(number("micro_batch_tokens"))));
  if (plan.at("gpus").get<int64_t>() > 1) {
    line("communication",
         fmt::format("{} for {} of gradients in {} buckets; hidden {} ({:.0f} %), exposed {}",
                     moment("communication_seconds"), bytes(plan.at("gradient_bytes")),
                     plan.at("buckets").get<int64_t>(), moment("hidden_seconds"),
                     number("communication_seconds") > 0 ? 100 * number("hidden_fraction") : 0,
                     moment("exposed_seconds")));
    line("in one piece",
         fmt::format(
             "all-reduce of the gradients {}, reduce-scatter {}; all-gather of the parameters {}",
             moment("all_reduce_seconds"), moment("reduce_scatter_seconds"),
             moment("all_gather_seconds")));
  }
  line("speed",
       fmt::format("{} tokens/s, {} a GPU; {:.1f} % of {} times the {} of one GPU",
                   count(number("tokens_per_second")), count(number("tokens_per_second_per_gpu")),
                   100 * number("scaling_efficiency"), plan.at("gpus").get<int64_t>(),
                   count(number("tokens_per_second_of_one_gpu"))));
  line("whole run", fmt::format("{} for {} steps", format_duration(number("run_seconds")),
                                plan.at("steps").get<int64_t>()));
  for (const char* key : {"memory", "memory_sharded"}) {
    const ordered_json& memory = plan.at(key);
    const bool whole = std::string_view(key) == "memory";
    line(whole ? "memory a GPU" : "  sharded",
         fmt::format(
             "{} = weights {} + gradients {} + optimiser {} + activations {}{}",
             bytes(memory.at("total_bytes")), bytes(memory.at("weight_bytes")),
             bytes(memory.at("gradient_bytes")), bytes(memory.at("optimizer_bytes")),
             bytes(memory.at("activation_bytes")),
             memory.at("total_bytes").get<double>() > number("memory_of_a_gpu")
                 ? fmt::format(": MORE than the {} of the GPU", bytes(plan.at("memory_of_a_gpu")))
                 : ""));
  }
  if (const auto scaling = plan.find("scaling"); scaling != plan.end()) {
    for (const char* kind : {"strong", "weak"}) {
      text += fmt::format("\n{}\n{:>6} {:>6} {:>9} {:>10} {:>10} {:>10} {:>11}\n",
                          std::string_view(kind) == "strong"
                              ? "strong scaling: the same step on more GPUs"
                              : "weak scaling: the same tokens on each GPU",
                          "GPUs", "nodes", "tokens", "step", "exposed", "tokens/s", "efficiency");
      for (const ordered_json& row : scaling->at(kind)) {
        text += fmt::format("{:>6} {:>6} {:>9} {:>10} {:>10} {:>10} {:>9.1f} %\n",
                            row.at("gpus").get<int64_t>(), row.at("nodes").get<int64_t>(),
                            count(row.at("batch_tokens").get<double>()),
                            format_moment(row.at("step_seconds").get<double>()),
                            format_moment(row.at("exposed_seconds").get<double>()),
                            count(row.at("tokens_per_second").get<double>()),
                            100 * row.at("efficiency").get<double>());
      }
    }
  }
  text += "\nassumed, and what changes it\n";
  for (const ordered_json& one : plan.at("assumptions")) {
    text += fmt::format(
        "  {} [{}]\n", one.at("assumption").get<std::string>(),
        one.at("changed_by").is_null() ? "nothing" : one.at("changed_by").get<std::string>());
  }
  return text;
}

}  // namespace polysketch::commands
