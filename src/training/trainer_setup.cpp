// SPDX-License-Identifier: Apache-2.0
// How a run begins and what it keeps: folder, model, checkpoint.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <map>
#include <set>

#include "config/keys.hpp"
#include "config/rules.hpp"
#include "device/device.hpp"
#include "launch/processors.hpp"
#include "model/memory.hpp"
#include "support/build_info.hpp"
#include "support/durable_file.hpp"
#include "support/hash.hpp"
#include "support/log.hpp"
#include "support/system_error.hpp"
#include "support/units.hpp"
#include "training/run_checkpoint.hpp"
#include "training/trainer.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

// Names and sizes of the files of the training split: what a process must not have otherwise than
// the others. Not their content, which may take hours to read; the digest of the tokens of every
// step goes into the checkpoint.
std::string data_fingerprint(const Corpus& corpus) {
  Sha256 hash;
  for (const CorpusFile& file : corpus.files(Split::train)) {
    const std::string line = fmt::format("{}\n{}\n", file.name, file.bytes);
    hash.update(line.data(), line.size());
  }
  return hash.hex();
}

}  // namespace

Trainer::~Trainer() = default;

Trainer::Trainer(const ResolvedConfig& resolved, const Options& options)
    : config_(resolved.config), run_folder_(config_.run.directory) {
  // The world comes before everything else, so that an error of one process is told to all.
  world_ = join_launched_world(
      config_.distributed, config_.training.device, config_.training.threads,
      [this](const Place& place) { require_valid_world(config_, place.world); });
  device_ = world_->device();
  try {
    set_up(resolved, options);
  } catch (const std::exception& error) {
    const ErrorReport found = report_of(error);
    world_->announce_end(found.code, found.text);
    throw;
  }
}

Peers Trainer::peers() {
  Peers all;
  all.rank = world_->rank();
  all.world = world_->size();
  all.all_gather = [this](const std::string& text) {
    return world_->collectives().all_gather_text(text, "checkpoint");
  };
  return all;
}

void Trainer::compare_configurations() {
  if (alone()) return;
  std::vector<std::pair<std::string, std::string>> facts{
      {"the program", sha256_file("/proc/self/exe")}};
  Config copy = config_;
  for (const Field& field : list_fields(copy)) {
    if (!field.per_process) facts.emplace_back(field.path, field.text());
  }
  world_->require_alike(facts);
}

void Trainer::compare_inputs() {
  if (alone()) return;
  world_->require_alike({{"the tokenizer", tokenizer_->sha256()},
                         {"the list of training files", data_fingerprint(*corpus_)}});
}

void Trainer::set_up(const ResolvedConfig& resolved, const Options& options) {
  folder_ = std::make_unique<RunFolder>(run_folder_, peers());
  compare_configurations();
  checkpoints_ = std::make_unique<CheckpointStore>(run_folder_, config_.checkpoint, peers());
  save_attempts_ = SaveAttempts(world_->leads());
  // The place in the data comes from the checkpoint's manifest, so that data is being prepared
  // while tensors are made.
  together(peers(), [&] {
    if (world_->leads()) require_run_files(run_folder_);
  });
  const auto found = folder_->taken() ? checkpoints_->newest_valid() : std::nullopt;
  if (found) {
    state_ = TrainState::from_json(found->manifest.state.at("train"));
    if (nothing_to_do(*found, options)) return;
  }
  open_inputs();
  compare_inputs();
  if (found) check_inputs(*found, options);
  hash_small_corpus();
  size_step();
  open_batches();
  require_space();
  folder_->take();
  build_model();
  if (found) restore(*found);
  if (world_->leads()) announce();
  if (batches_) batches_->wait_until_ready();
  keep_folder(resolved);
}

// Whether the run of the checkpoint is finished. Throws UserError if it may not go on under this
// configuration.
bool Trainer::nothing_to_do(const CheckpointStore::Loaded& checkpoint, const Options& options) {
  const std::string changes = check_configuration(checkpoint, config_, options.allow_config_change);
  const int64_t last = config_.training.steps;
  if (state_.step < last || state_.is_due("perplexity", config_.evaluation.every, last)) {
    if (!changes.empty() && world_->leads())
      log_warning("continuing under a changed configuration (checkpoint -> now):\n  " + changes);
    return false;
  }
  // Nothing is needed any more; but another tokenizer is a mistake worth a word.
  std::error_code error;
  const std::string& tokenizer = config_.data.tokenizer.path;
  if (fs::is_regular_file(tokenizer, error))
    check_tokenizer(checkpoint, tokenizer, sha256_file(tokenizer));
  if (world_->leads())
    log_info(fmt::format("nothing to do: the run is at step {} of {}", state_.step,
                         config_.training.steps));
  return true;
}

// What the run will need at its first step and at its first validation.
void Trainer::open_inputs() {
  corpus_ = std::make_unique<Corpus>(Corpus::open(config_.data));
  tokenizer_ = std::make_unique<Tokenizer>(config_.data.tokenizer.path);
  tokenizer_->require_fits(config_.model.vocabulary, config_.data.cleaning);
  if (const auto unused = unused_rows(config_.model, tokenizer_->vocabulary());
      unused && world_->leads())
    log_warning(*unused);
  training_files_ = CorpusIdentity::of(*corpus_, Split::train);
  if (config_.evaluation.every > 0) check_split(config_.data, config_.evaluation.split);
}

// What the training files hold is known, and compared, before the first step where that takes no
// time; of a large corpus when its files are first read.
void Trainer::hash_small_corpus() {
  constexpr uint64_t most_bytes = uint64_t{256} << 20;
  const auto files = corpus_->files(Split::train);
  uint64_t bytes = 0;
  for (const CorpusFile& file : files) bytes += file.bytes;
  if (bytes > most_bytes) return;
  for (const CorpusFile& file : files) (void)corpus_->content_hash(file);
}

void Trainer::size_step() {
  const int64_t context = config_.data.context;
  sequences_per_step_ = config_.training.batch_tokens / context;
  rows_ = micro_batch_rows(config_.training, context, sequences_per_sum(), device_.is_cuda());
  if (sequences_per_sum() % rows_ != 0) {
    throw UserError(ExitCode::config,
                    fmt::format("training.micro_batch_tokens: {} sequences do "
                                "not divide the {} that {} has: use 0, or a "
                                "divisor",
                                rows_, sequences_per_sum(), canonical() ? "a shard" : "a process"));
  }
  cost_ = model_cost(config_.model, config_.attention, config_.training.precision, context,
                     rows_ * context);
  require_training_memory(config_, rows_, world_->available_memory(),
                          config_.distributed.shard_optimizer ? world_->size() : 1);
}

void Trainer::open_batches() {
  if (state_.step >= config_.training.steps) return;  // only a validation is left
  BatchStream::Options order;
  order.rank = world_->rank();
  order.world = world_->size();
  order.sequences_per_step = sequences_per_step_;
  order.rows_per_batch = rows_;
  order.start_sequence = state_.sequences;
  order.order_version = state_.order_version;
  order.seed = static_cast<uint64_t>(config_.run.seed);
  DataConfig data = config_.data;
  if (data.threads == 0 && world_->place().local_world > 1)
    data.threads = threads_each(usable_processors(), world_->place().local_world);
  batches_ = std::make_unique<BatchStream>(data, *corpus_, *tokenizer_, order);
}

// A disk that cannot hold a checkpoint would show at the first save, when there is something to
// lose.
void Trainer::require_space() const {
  if (!world_->leads()) return;
  std::error_code error;
  fs::path existing = fs::absolute(run_folder_, error);
  while (!error && !fs::exists(existing, error) && existing.has_relative_path())
    existing = existing.parent_path();
  const fs::space_info space = fs::space(existing, error);
  if (error) return;  // a file system that does not say
  const auto available = static_cast<int64_t>(std::min<uintmax_t>(
      space.available, static_cast<uintmax_t>(std::numeric_limits<int64_t>::max())));
  const int64_t one = cost_.checkpoint_bytes;
  if (available < one) {
    throw UserError(ExitCode::io,
                    fmt::format("{}: no space for a checkpoint: {} needed, {} free; make room, or "
                                "choose another run.directory",
                                run_folder_, format_bytes(one), format_bytes(available)));
  }
  // The largest file of a checkpoint holds both moments, 8 of its 12 bytes a parameter, or a
  // process's share of them.
  struct rlimit largest {};
  const int64_t file = one / 3 * 2 / world_->size();
  if (::getrlimit(RLIMIT_FSIZE, &largest) == 0 && largest.rlim_cur < static_cast<rlim_t>(file)) {
    throw UserError(
        ExitCode::io,
        fmt::format("{}: no file may be larger than {} here, but a checkpoint has one of {}: raise "
                    "the limit by ulimit -f",
                    run_folder_, format_bytes(static_cast<int64_t>(largest.rlim_cur)),
                    format_bytes(file)));
  }
  const bool best = config_.checkpoint.keep_best && config_.evaluation.every > 0;
  // the best and the newest, while that is being written
  const int64_t most = config_.checkpoint.keep_last + (best ? 2 : 1);
  if (available / most < one) {
    log_warning(
        fmt::format("{}: {} free, but {} checkpoints of {} will be there at a time "
                    "(checkpoint.keep_last + {}): make room, or keep fewer",
                    run_folder_, format_bytes(available), most, format_bytes(one), best ? 2 : 1));
  }
}

// Everything has been opened and the first batch is there: from here on the folder is this run's.
void Trainer::keep_folder(const ResolvedConfig& resolved) {
  world_->dump_into(run_folder_);
  if (world_->leads()) write_description(to_yaml(resolved));
  attach_log_file(log_path());
  std::error_code error;
  log_is_there_ = fs::exists(log_path(), error);
  if (world_->leads()) {
    sinks_.push_back(make_jsonl_sink(run_folder_ + "/metrics.jsonl", state_.step));
    if (config_.logging.tensorboard)
      sinks_.push_back(make_tensorboard_sink(run_folder_ + "/tensorboard"));
    sinks_.push_back(make_console_sink({.total_steps = config_.training.steps,
                                        .start_step = state_.step,
                                        .every = config_.logging.every,
                                        .progress = config_.logging.progress}));
    record("start", {{"parameters", cost_.parameters},
                     {"flops_per_token", cost_.flops_per_token},
                     {"device", device_name(device_)},
                     {"commit", build_info().at(1).second}});
  }
  folder_->keep();
}

std::string Trainer::log_path() const {
  return run_folder_ + (world_->leads() ? std::string("/log.txt")
                                        : fmt::format("/log-rank{}.txt", world_->rank()));
}

// run.json comes first: it tells that the folder is a run's.
void Trainer::write_description(const std::string& config_text) const {
  const nlohmann::ordered_json about{{"build", pairs_to_json(build_info())},
                                     {"machine", pairs_to_json(machine_info())}};
  write_file_durably(run_folder_ + "/run.json", about.dump(2) + "\n");
  write_file_durably(run_folder_ + "/config.yaml", config_text);
}

void Trainer::build_model() {
  Transformer::Options options = transformer_options(config_, device_);
  options.initialize = state_.step == 0;
  const DistributedConfig& distributed = config_.distributed;
  options.sharding = {
      .rank = world_->rank(),
      .world = world_->size(),
      .bucket_elements = distributed.bucket_bytes / static_cast<int64_t>(sizeof(float)),
      .masters = distributed.shard_optimizer};
  model_ = std::make_unique<Transformer>(options);
  Parameters& parameters = model_->parameters();
  Collectives& collectives = world_->collectives();
  optimizer_ = std::make_unique<AdamW>(parameters, config_.optimizer,
                                       distributed.shard_optimizer ? &collectives : nullptr);
  exchange_ = make_gradient_exchange(parameters, collectives, distributed);
  step_ = std::make_unique<TrainingStep>(
      *model_, *optimizer_, *exchange_, *world_,
      TrainingStep::Sizes{config_.training.batch_tokens, config_.data.context, rows_},
      options.seed);
  evaluators_.push_back(
      make_perplexity_evaluator(config_, *model_, *corpus_, *tokenizer_, collectives, rows_));
  if (!alone() && distributed.straggler > 0)
    stragglers_ = std::make_unique<Stragglers>(*world_, distributed.straggler);
}

void Trainer::check_inputs(const CheckpointStore::Loaded& checkpoint, const Options& options) {
  const nlohmann::json& saved = checkpoint.manifest.state;
  check_tokenizer(checkpoint, config_.data.tokenizer.path, tokenizer_->sha256());
  if (!saved.contains("training_files")) return;  // a checkpoint from before they were noted
  const auto before = CorpusIdentity::from_json(saved.at("training_files"));
  const std::string text = before.difference(training_files_);
  if (options.allow_data_change) {
    if (!text.empty() && world_->leads())
      log_warning(fmt::format("continuing with other training files: {}", text));
    return;
  }
  if (!text.empty()) {
    throw UserError(
        ExitCode::bad_data,
        fmt::format("{}: these are not the training files of {}: {}; set data.root to the files "
                    "that the run began with, choose another run.directory, or continue with "
                    "--allow-data-change (the place in the data then means other text)",
                    config_.data.root, checkpoint.directory.string(), text));
  }
  corpus_->expect_hashes(before.hashes());
  training_files_.continue_from(before);
  corpus_->count_as(training_files_.counted());
  if (const auto names = before.unreadable(); !names.empty() && world_->leads())
    log_info(fmt::format("{}: could not be read before: the run goes on with what is there now",
                         fmt::join(names, ", ")));
}

void Trainer::restore(const CheckpointStore::Loaded& checkpoint) {
  restore_training_tensors(checkpoint, model_->parameters(), *optimizer_);
  model_->at_step(std::max<int64_t>(0, state_.step - 1));
  saved_step_ = state_.step;
  if (!world_->leads()) return;
  if (const int64_t before = checkpoint.manifest.state.value("processes", int64_t{1});
      before != world_->size()) {
    log_info(fmt::format(
        "the checkpoint was made by {} processes, now there are {}: the same tokens go on{}",
        before, world_->size(),
        canonical() ? ", and the same sums" : "; sums are rounded otherwise in their last bits"));
  }
  log_info(fmt::format("continuing from {} at step {}, {} tokens, digest {}",
                       checkpoint.directory.string(), state_.step, format_count(state_.tokens),
                       digest_text(state_.digest)));
}

void Trainer::save() {
  check_folder();
  training_files_.note(corpus_->known_hashes());
  training_files_.note_unreadable(unreadable_files_);
  const Stopwatch watch;
  world_->be_patient(true);
  if (const auto measured = state_.evaluations.find("perplexity");
      measured != state_.evaluations.end())
    checkpoints_->set_best(measured->second.best_step);
  const std::vector<TensorGroup> groups =
      training_tensors(model_->parameters(), *optimizer_, world_->collectives(), peers());
  const nlohmann::json state = checkpoint_state(state_, config_,
                                                {.tokenizer_sha256 = tokenizer_->sha256(),
                                                 .training_files = training_files_,
                                                 .device = device_name(device_),
                                                 .processes = world_->size()});
  uint64_t bytes = 0;
  const bool saved = save_attempts_.attempt(
      state_.step, [&] { bytes = checkpoints_->save(state_.step, groups, state); });
  world_->be_patient(false);
  if (!saved) return;
  since_save_ = watch;
  saved_step_ = state_.step;
  record("checkpoint", {{"path", checkpoints_->path_of(state_.step).string()},
                        {"bytes", bytes},
                        {"seconds", watch.seconds()}});
}

}  // namespace polysketch
