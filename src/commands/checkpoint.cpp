// SPDX-License-Identifier: Apache-2.0
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/leftovers.hpp"
#include "checkpoint/tensor_file.hpp"
#include "checkpoint/verification.hpp"
#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/standard_streams.hpp"
#include "support/units.hpp"

namespace polysketch::commands {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// The run folder itself: the commands take `<run>` and `<run>/checkpoints` alike.
fs::path run_folder(const fs::path& path) {
  const fs::path plain = fs::path(path / "").lexically_normal().parent_path();
  return plain.filename() == "checkpoints" ? plain.parent_path() : plain;
}

bool is_checkpoint(const fs::path& path) {
  return kind_of_file(path / "manifest.json") != FileKind::nothing ||
         step_of_name(run_folder(path).filename().string()).has_value();
}

/// The checkpoints that a path of the command line means: one, or all those of a run.
std::vector<fs::path> checkpoints_at(const fs::path& path) {
  require_run_folder(path.string());
  if (kind_of_file(path) != FileKind::folder)
    throw UserError(
        ExitCode::missing_input,
        fmt::format("{}: no such folder; give a run or a checkpoint of it", path.string()));
  if (is_checkpoint(path)) return {run_folder(path)};
  const CheckpointStore store(run_folder(path), {});
  std::vector<fs::path> found;
  for (const int64_t step : store.steps()) found.push_back(store.path_of(step));
  if (found.empty())
    throw UserError(ExitCode::missing_input,
                    fmt::format("{}: holds no checkpoints", path.string()));
  return found;
}

uint64_t bytes_of(const Manifest& manifest) {
  uint64_t bytes = 0;
  for (const FileRecord& file : manifest.files) bytes += file.bytes;
  return bytes;
}

std::string saved_at(const fs::path& checkpoint) {
  struct stat status {};
  if (::stat((checkpoint / "manifest.json").c_str(), &status) != 0) return {};
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(status.st_mtime));
}

void list(const std::string& run, bool as_json) {
  ordered_json rows = ordered_json::array();
  for (const fs::path& checkpoint : checkpoints_at(run)) {
    ordered_json row{{"step", step_of_name(checkpoint.filename().string()).value_or(-1)},
                     {"path", checkpoint.string()}};
    try {
      const Manifest manifest = read_manifest(checkpoint);
      row["step"] = manifest.step;
      row["bytes"] = bytes_of(manifest);
      row["saved"] = saved_at(checkpoint);
    } catch (const UserError& error) {
      row["defect"] = error.what();
    }
    rows.push_back(std::move(row));
  }
  if (as_json) return print_json(rows);
  std::string text;
  for (const ordered_json& row : rows) {
    if (row.contains("defect")) {
      text += fmt::format("step {:>9}  damaged: {}\n", row["step"].get<int64_t>(),
                          row["defect"].get<std::string>());
    } else {
      text += fmt::format("step {:>9}  {:>9}  {}  {}\n", row["step"].get<int64_t>(),
                          format_bytes(row["bytes"].get<int64_t>()),
                          row["saved"].get<std::string>(), row["path"].get<std::string>());
    }
  }
  print(text);
}

void verify(const std::vector<std::string>& paths, bool as_json) {
  ordered_json rows = ordered_json::array();
  size_t bad = 0;
  for (const std::string& path : paths) {
    for (const fs::path& checkpoint : checkpoints_at(path)) {
      ordered_json row{{"path", checkpoint.string()}, {"ok", true}};
      std::string line;
      try {
        const auto loaded = verify_checkpoint(checkpoint);
        row["step"] = loaded.step;
        row["bytes"] = bytes_of(loaded.manifest);
        line = fmt::format("ok       {}  ({} in {} files)", checkpoint.string(),
                           format_bytes(row["bytes"].get<int64_t>()), loaded.manifest.files.size());
      } catch (const UserError& error) {
        ++bad;
        row["ok"] = false;
        row["defect"] = error.what();
        line = fmt::format("DAMAGED  {}", error.what());
      }
      // A line as soon as it is known: large checkpoints take a while.
      if (!as_json) print(line + "\n");
      rows.push_back(std::move(row));
    }
  }
  if (as_json) print_json(rows);
  if (bad == 0) return;
  throw UserError(
      ExitCode::no_checkpoint,
      fmt::format("{} of {} checkpoints are damaged; resuming uses the newest sound one of a run",
                  bad, rows.size()));
}

ordered_json describe_tensors(const fs::path& path) {
  ordered_json tensors = ordered_json::array();
  const TensorFile file(path);
  for (const TensorInfo& tensor : file.tensors()) {
    tensors.push_back({{"name", tensor.name},
                       {"dtype", safetensors_name(tensor.type)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes}});
  }
  ordered_json described{
      {"file", path.filename().string()}, {"bytes", file.bytes()}, {"tensors", std::move(tensors)}};
  if (!file.metadata().empty()) described["metadata"] = file.metadata();
  return described;
}

ordered_json describe(const fs::path& path) {
  if (kind_of_file(path) != FileKind::folder) return {{"files", {describe_tensors(path)}}};
  const fs::path checkpoint = checkpoints_at(path).back();
  const Manifest manifest = read_manifest(checkpoint);
  ordered_json files = ordered_json::array();
  for (const FileRecord& file : manifest.files) {
    if (fs::path(file.name).extension() == ".safetensors") {
      files.push_back(describe_tensors(checkpoint / file.name));
    } else {
      files.push_back({{"file", file.name}, {"bytes", file.bytes}});
    }
  }
  ordered_json groups = ordered_json::array();
  for (const std::string& name : groups_of(manifest.files)) {
    const TensorSet set(checkpoint, manifest.files, name);
    uint64_t bytes = 0;
    for (const TensorInfo& tensor : set.tensors()) bytes += tensor.bytes;
    groups.push_back({{"name", name},
                      {"files", set.files()},
                      {"tensors", set.tensors().size()},
                      {"bytes", bytes}});
  }
  return {{"path", checkpoint.string()}, {"step", manifest.step},     {"writers", manifest.writers},
          {"groups", std::move(groups)}, {"files", std::move(files)}, {"state", manifest.state}};
}

std::string plural(int64_t count, const char* one, const char* several) {
  return fmt::format("{} {}", count, count == 1 ? one : several);
}

std::string tensor_lines(const ordered_json& file) {
  std::string text;
  size_t width = 0;
  int64_t elements = 0;
  for (const auto& tensor : file["tensors"])
    width = std::max(width, tensor["name"].get<std::string>().size());
  for (const auto& tensor : file["tensors"]) {
    std::string shape;
    int64_t count = 1;
    for (const auto& extent : tensor["shape"]) {
      shape += (shape.empty() ? "" : ", ") + extent.dump();
      count *= extent.get<int64_t>();
    }
    elements += count;
    text += fmt::format("  {:<{}}  {:<4}  {:>9}  [{}]\n", tensor["name"].get<std::string>(), width,
                        tensor["dtype"].get<std::string>(),
                        format_bytes(tensor["bytes"].get<int64_t>()), shape);
  }
  return text +
         fmt::format("  {}, {} elements\n",
                     plural(static_cast<int64_t>(file["tensors"].size()), "tensor", "tensors"),
                     format_count(elements));
}

void inspect(const std::string& path, bool as_json) {
  if (kind_of_file(path) == FileKind::nothing)
    throw UserError(ExitCode::missing_input, fmt::format("{}: no such file or folder", path));
  const std::string ending = fs::path(path).extension().string();
  if (ending == ".yaml" || ending == ".yml") require_run_folder(path);
  const ordered_json description = describe(path);
  if (as_json) return print_json(description);
  std::string text;
  if (description.contains("step")) {
    text = fmt::format("{}\nstep {}, written by {}\n", description["path"].get<std::string>(),
                       description["step"].get<int64_t>(),
                       plural(description["writers"].get<int64_t>(), "process", "processes"));
    for (const auto& group : description["groups"]) {
      text += fmt::format("{}: {} in {}, {}\n", group["name"].get<std::string>(),
                          plural(group["tensors"].get<int64_t>(), "tensor", "tensors"),
                          plural(group["files"].get<int64_t>(), "file", "files"),
                          format_bytes(group["bytes"].get<int64_t>()));
    }
  }
  for (const auto& file : description["files"]) {
    text += fmt::format("{}  {}\n", file["file"].get<std::string>(),
                        format_bytes(file["bytes"].get<int64_t>()));
    if (file.contains("tensors")) text += tensor_lines(file);
    if (file.contains("metadata")) text += "  metadata " + json_text(file["metadata"], -1) + "\n";
  }
  if (description.contains("state")) text += "state " + json_text(description["state"]) + "\n";
  print(text);
}

}  // namespace

void add_checkpoint(CLI::App& app) {
  CLI::App* group = app.add_subcommand("checkpoint", "list, verify and inspect checkpoints");
  group->require_subcommand(1);

  struct Options {
    std::string path;
    std::vector<std::string> paths;
    bool json = false;
  };
  const auto options = std::make_shared<Options>();

  CLI::App* lister = group->add_subcommand("list", "the checkpoints of a run, oldest first");
  lister->add_option("RUN", options->path, "run folder")->required();
  lister->add_flag("--json", options->json, "print JSON");
  lister->callback([options] { list(options->path, options->json); });

  CLI::App* verifier = group->add_subcommand(
      "verify", "check sizes and SHA-256 of every file; exit code 81 if one is damaged");
  verifier->add_option("PATH", options->paths, "run folders or single checkpoints")->required();
  verifier->add_flag("--json", options->json, "print JSON");
  verifier->callback([options] { verify(options->paths, options->json); });

  CLI::App* inspector =
      group->add_subcommand("inspect", "tensors, shapes and saved state of a checkpoint");
  inspector
      ->add_option("PATH", options->path,
                   "checkpoint, run folder (its newest checkpoint) or .safetensors file")
      ->required();
  inspector->add_flag("--json", options->json, "print JSON");
  inspector->callback([options] { inspect(options->path, options->json); });
}

}  // namespace polysketch::commands
