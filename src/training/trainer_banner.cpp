// SPDX-License-Identifier: Apache-2.0
// What a run says of itself before its first step.
#include <fmt/format.h>

#include <set>
#include <string>

#include "attention/ops/choice.hpp"
#include "data/token_cache.hpp"
#include "device/device.hpp"
#include "kernels/cpu/instruction_set.hpp"
#include "support/log.hpp"
#include "support/units.hpp"
#include "training/trainer.hpp"

namespace polysketch {
namespace {

std::string counted(size_t count, const char* thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
}

}  // namespace

std::string Trainer::describe_data() const {
  const Corpus::SplitSummary text = corpus_->summary(Split::train);
  std::string cached;
  // where the files' hashes are known, so is what the cache has of them
  if (static_cast<int64_t>(corpus_->known_hashes().size()) >= text.files) {
    const auto cache = TokenCache::open(config_.data, *corpus_, Split::train, *tokenizer_);
    int64_t whole = 0;
    for (int64_t file = 0; file < text.files; ++file) {
      if (cache->file_summary(file)) ++whole;
    }
    cached = whole == text.files ? ", which has all files"
                                 : fmt::format(
                                       ", which has {} of {} files; training tokenises the "
                                       "others",
                                       whole, text.files);
  }
  return fmt::format(
      "data: {}: {} of {} from {}: {}\n"
      "tokens: tokenizer {} of {} pieces; token cache {}{}",
      text.corpus == text.format ? text.corpus : text.corpus + ", " + text.format,
      counted(static_cast<size_t>(text.files), "file"),
      format_bytes(static_cast<int64_t>(text.bytes)), config_.data.root, text.patterns,
      config_.data.tokenizer.path, tokenizer_->vocabulary(),
      token_cache_folder(config_.data).string(), cached);
}

void Trainer::announce() const {
  const auto& m = config_.model;
  log_info(fmt::format(
      "model: {} parameters ({} without embedding), {} layers x {} wide, {} heads of {}, "
      "vocabulary {}",
      format_count(cost_.parameters), format_count(cost_.parameters - cost_.embedding_parameters),
      m.layers, m.width, m.heads, m.width / m.heads, m.vocabulary));
  log_info(fmt::format(
      "step: {} tokens = {} sequences of {}, in micro-batches of {}; {} steps, {} tokens in all; "
      "{:.4g} GFLOP a token",
      format_count(config_.training.batch_tokens), sequences_per_step_, config_.data.context, rows_,
      config_.training.steps, format_count(config_.training.steps * config_.training.batch_tokens),
      cost_.flops_per_token / 1e9));
  log_info(describe_data());
  log_info(fmt::format("run: {}, on {}, {}", run_folder_, device_name(device_),
                       config_.training.precision == Precision::bf16 ? "bf16" : "fp32"));
  log_info(fmt::format(
      "operations{}: {}",
      device_.is_cpu() ? fmt::format(" (kernels for {})", name(kernels::instruction_set())) : "",
      ops::operations_in_use(device_)));
  if (world_->place().source != "none") {
    const size_t machines =
        std::set<std::string>(world_->hosts().begin(), world_->hosts().end()).size();
    const Place& place = world_->place();
    const size_t buckets = model_->parameters().buckets().size();
    log_info(fmt::format("processes: {} on {}, started by {}, over {}; gradients in {}{}{}",
                         world_->size(), counted(machines, "machine"),
                         place.source == "file" ? "hand, with a shared file" : place.launcher,
                         world_->collectives().transport(), counted(buckets, "bucket"),
                         canonical() ? ", canonical order" : "",
                         optimizer_->sharded() ? ", optimiser sharded" : ""));
  }
}

}  // namespace polysketch
