// SPDX-License-Identifier: Apache-2.0
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdio>
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
#include "support/error.hpp"
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
  return fs::exists(path / "manifest.json") ||
         step_of_name(run_folder(path).filename().string()).has_value();
}

/// The checkpoints that a path of the command line means: one, or all those of a run.
std::vector<fs::path> checkpoints_at(const fs::path& path) {
  require_run_folder(path.string());
  if (!fs::is_directory(path))
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
  if (as_json) {
    fmt::print("{}\n", rows.dump(2));
    return;
  }
  for (const ordered_json& row : rows) {
    if (row.contains("defect")) {
      fmt::print("step {:>9}  damaged: {}\n", row["step"].get<int64_t>(),
                 row["defect"].get<std::string>());
    } else {
      fmt::print("step {:>9}  {:>9}  {}  {}\n", row["step"].get<int64_t>(),
                 format_bytes(row["bytes"].get<int64_t>()), row["saved"].get<std::string>(),
                 row["path"].get<std::string>());
    }
  }
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
      if (!as_json) fmt::print("{}\n", line);
      std::fflush(stdout);  // a line as soon as it is known: large checkpoints take a while
      rows.push_back(std::move(row));
    }
  }
  if (as_json) fmt::print("{}\n", rows.dump(2));
  if (bad == 0) return;
  std::fflush(stdout);
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
  ordered_json described{{"file", path.filename().string()},
                         {"bytes", fs::file_size(path)},
                         {"tensors", std::move(tensors)}};
  if (!file.metadata().empty()) described["metadata"] = file.metadata();
  return described;
}

ordered_json describe(const fs::path& path) {
  if (!fs::is_directory(path)) return {{"files", {describe_tensors(path)}}};
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

void print_tensors(const ordered_json& file) {
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
    fmt::print("  {:<{}}  {:<4}  {:>9}  [{}]\n", tensor["name"].get<std::string>(), width,
               tensor["dtype"].get<std::string>(), format_bytes(tensor["bytes"].get<int64_t>()),
               shape);
  }
  fmt::print("  {} tensors, {} elements\n", file["tensors"].size(), format_count(elements));
}

void inspect(const std::string& path, bool as_json) {
  if (!fs::exists(path))
    throw UserError(ExitCode::missing_input, fmt::format("{}: no such file or folder", path));
  const std::string ending = fs::path(path).extension().string();
  if (ending == ".yaml" || ending == ".yml") require_run_folder(path);
  const ordered_json description = describe(path);
  if (as_json) {
    fmt::print("{}\n", description.dump(2));
    return;
  }
  if (description.contains("step")) {
    fmt::print("{}\nstep {}, written by {}\n", description["path"].get<std::string>(),
               description["step"].get<int64_t>(),
               plural(description["writers"].get<int64_t>(), "process", "processes"));
    for (const auto& group : description["groups"]) {
      fmt::print("{}: {} in {}, {}\n", group["name"].get<std::string>(),
                 plural(group["tensors"].get<int64_t>(), "tensor", "tensors"),
                 plural(group["files"].get<int64_t>(), "file", "files"),
                 format_bytes(group["bytes"].get<int64_t>()));
    }
  }
  for (const auto& file : description["files"]) {
    fmt::print("{}  {}\n", file["file"].get<std::string>(),
               format_bytes(file["bytes"].get<int64_t>()));
    if (file.contains("tensors")) print_tensors(file);
    if (file.contains("metadata")) fmt::print("  metadata {}\n", file["metadata"].dump());
  }
  if (description.contains("state")) fmt::print("state {}\n", description["state"].dump(2));
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
