// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "bench/attention_report.hpp"
#include "bench/decode_bench.hpp"
#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/number_options.hpp"
#include "device/device.hpp"
#include "reporting/progress_bar.hpp"
#include "reporting/svg_file.hpp"
#include "support/log.hpp"
#include "support/output_file.hpp"
#include "support/standard_streams.hpp"
#include "support/stop_signal.hpp"
#include "support/units.hpp"

namespace polysketch::commands {
namespace {

constexpr const char* decode_kinds =
    "softmax,polysketch:learned-local,polysketch:random-local,performer,hedgehog,sliding_window";
constexpr const char* default_kinds =
    "softmax,polynomial,polysketch:learned-local,polysketch:random-local,performer";

struct Arguments {
  ConfigArguments config;
  std::string kinds = default_kinds;
  std::string lengths;
  const char* lengths_option = "--lengths";
  int64_t tokens = 0;
  int64_t heads = 0, head_width = 0;
  int64_t batch = 1;
  std::string precision, device;
  int rounds = 5;
  double limit_seconds = 30;
  bool json = false, wants_svg = false;
  std::string svg;
};

AttentionBenchOptions options_of(const Arguments& arguments) {
  StopSignal::install_to_end();
  const Config config = arguments.config.resolve().config;
  AttentionBenchOptions options;
  options.variants = parse_attention_variants(arguments.kinds, config.attention);
  options.lengths = parse_lengths(arguments.lengths, arguments.lengths_option);
  options.shape = {
      arguments.heads > 0 ? arguments.heads : config.model.heads,
      arguments.head_width > 0 ? arguments.head_width : config.model.width / config.model.heads};
  options.batch = arguments.batch;
  const bool bf16 = arguments.precision.empty() ? config.training.precision == Precision::bf16
                                                : arguments.precision == "bf16";
  options.type = bf16 ? at::kBFloat16 : at::kFloat;
  options.rounds = arguments.rounds;
  options.limit_seconds = arguments.limit_seconds;
  options.seed = static_cast<uint64_t>(config.run.seed);
  options.device = open_device(arguments.device.empty() ? config.training.device : arguments.device,
                               config.training.threads);
  return options;
}

std::vector<AttentionFigures> measure(AttentionBenchOptions& options, const char* title) {
  ProgressBar progress(title, progress_steps(options), "calls");
  options.progress = [&](int64_t done, const std::string& now) { progress.update(done, now); };
  return bench_attention(options);
}

void run_attention(const Arguments& arguments) {
  AttentionBenchOptions options = options_of(arguments);
  const std::vector<AttentionFigures> figures = measure(options, "bench attention");
  if (arguments.json) return print_json(attention_bench_json(options, figures), -1);
  print(attention_bench_heading(options) + "\n" + attention_bench_table(figures));
}

void run_crossover(const Arguments& arguments) {
  AttentionBenchOptions options = options_of(arguments);
  const bool has_softmax =
      std::any_of(options.variants.begin(), options.variants.end(),
                  [](const AttentionVariant& v) { return v.name == "softmax"; });
  if (!has_softmax)
    options.variants.insert(options.variants.begin(),
                            parse_attention_variants("softmax", {}).front());
  std::optional<OutputFile> svg;
  if (arguments.wants_svg) svg.emplace("--svg", arguments.svg);
  const bool takes_output = svg && svg->is_standard_output();
  if (takes_output && arguments.json)
    throw UserError(
        ExitCode::usage,
        "--json: prints on standard output, where --svg puts the picture: give --svg the "
        "name of a file");
  const std::vector<AttentionFigures> figures = measure(options, "bench crossover");
  const std::string table = attention_bench_heading(options) + "\n" + crossover_table(figures);
  if (arguments.json) {
    print_json(crossover_json(options, figures), -1);
  } else if (takes_output) {
    log_info(table);
  } else {
    print(table);
  }
  if (!svg) return;
  const std::string picture = svg_file(crossover_plot(figures), attention_bench_heading(options));
  if (picture.empty()) {
    log_warning(fmt::format("{}: not written, since nothing was measured", svg->place()));
  } else {
    svg->write(picture);
    log_info(
        fmt::format("{}: {}", svg->place(), format_bytes(static_cast<int64_t>(picture.size()))));
  }
}

void run_decode(const Arguments& arguments) {
  DecodeBenchOptions options{options_of(arguments), arguments.tokens};
  ProgressBar progress("bench decode", progress_steps(options), "calls");
  options.common.progress = [&](int64_t done, const std::string& now) {
    progress.update(done, now);
  };
  const std::vector<DecodeFigures> figures = bench_decode(options);
  if (arguments.json) return print_json(decode_bench_json(options, figures), -1);
  print(attention_bench_heading(options.common) + "\n" + decode_bench_table(figures));
}

CLI::App* add_command(CLI::App& bench, const std::string& name, const std::string& description,
                      const char* lengths, const std::shared_ptr<Arguments>& arguments) {
  CLI::App* command = bench.add_subcommand(name, description);
  arguments->lengths = lengths;
  add_config_arguments(*command, arguments->config);
  command->get_option("config")->required(false);
  command->add_option("--kinds", arguments->kinds, "mechanisms, with commas between; see below")
      ->capture_default_str()
      ->type_name("KIND,…");
  const bool positions = std::string(arguments->lengths_option) == "--positions";
  command
      ->add_option(arguments->lengths_option, arguments->lengths,
                   positions ? "tokens before the ones that are timed, with commas between"
                             : "context lengths, with commas between")
      ->capture_default_str()
      ->type_name("T,…");
  add_count(*command, "--heads", arguments->heads, 1, 65'536,
            "attention heads; default: the configuration's, or 12");
  add_count(*command, "--head-width", arguments->head_width, 1, 4096,
            "width of a head; default: the configuration's, or 64");
  add_count(*command, "--batch", arguments->batch, 1, 65'536, "sequences in a call");
  command
      ->add_option("--precision", arguments->precision, "bf16 or fp32; default: training.precision")
      ->check(CLI::IsMember({"bf16", "fp32"}));
  command->add_option("--device", arguments->device,
                      "auto, cpu, cuda or cuda:N; default: training.device");
  add_count(*command, "--rounds", arguments->rounds, 1, 10'000, "how often everything is timed");
  add_duration(*command, "--limit-seconds", arguments->limit_seconds, 0, 365 * 86400.0, "30s",
               positions
                   ? "leave out states and measurements that take longer than this; 0: no limit"
                   : "leave out what takes longer than this, forward and backward; 0: no limit",
               /*bare=*/true);
  command->add_flag("--json", arguments->json, "print one JSON object");
  command->footer(fmt::format(
      "One layer on random q, k, v: forward as in evaluation, and forward and backward as in "
      "training. In each round every kind is called\n"
      "once, in turn; figures are medians. What would not fit into memory or take too long is left "
      "out, and said.\n"
      "\n"
      "Kinds: {}.\n"
      "-local: blocks on the diagonal are exact. R: the sketch size. p: the degree. What a name "
      "does not say (block, window, features, "
      "sketch\n"
      "size, …) comes from attention.* of CONFIG or --set, e.g. --set attention.block=512.",
      attention_variant_forms));
  return command;
}

}  // namespace

void add_bench_attention(CLI::App& bench) {
  const auto attention = std::make_shared<Arguments>();
  add_command(bench, "attention",
              "Time, memory and FLOPs of attention mechanisms, beside LibTorch's softmax attention",
              "1Ki,4Ki", attention)
      ->callback([attention] { run_attention(*attention); });
  const auto crossover = std::make_shared<Arguments>();
  CLI::App* command = add_command(
      bench, "crossover",
      "Time per token over context lengths, and from which length on softmax is overtaken",
      "512,1Ki,2Ki,4Ki,8Ki,16Ki,32Ki,64Ki,128Ki", crossover);
  command
      ->add_option_function<std::string>(
          "--svg",
          [crossover](const std::string& name) {
            crossover->svg = name;
            crossover->wants_svg = true;
          },
          "also draw the table, both axes logarithmic; - for standard output")
      ->type_name("FILE");
  command->callback([crossover] { run_crossover(*crossover); });

  const auto decode = std::make_shared<Arguments>();
  decode->kinds = decode_kinds;
  decode->lengths_option = "--positions";
  command = add_command(bench, "decode",
                        "Time per token and state of the recurrent form of attention mechanisms",
                        "100,100000", decode);
  add_count(
      *command, "--tokens", decode->tokens, 1, 1'000'000,
      "tokens of a measurement; default: a block (attention.block), 64 where the state grows");
  command->footer(
      fmt::format("One layer that reads as many random tokens as the position says and then goes "
                  "on token by token, as `generate` does. A token of\n"
                  "a linear kind costs more the fuller the open block is, and the first block has "
                  "nothing behind it: compare positions beyond the\n"
                  "first block, over whole blocks or where position modulo attention.block is the "
                  "same.\n\nKinds: {}.",
                  attention_variant_forms));
  command->callback([decode] { run_decode(*decode); });
}

}  // namespace polysketch::commands
