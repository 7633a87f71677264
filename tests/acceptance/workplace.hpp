// SPDX-License-Identifier: Apache-2.0
// What a user has when beginning: a folder of text, a tokenizer made from it, a configuration. And
// the program, run as a user runs it.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "helpers/test_helpers.hpp"

namespace polysketch::test {

using Words = std::vector<std::string>;

/// The program with these arguments, to its end.
inline ProcessResult polysketch(const Words& arguments, const Words& environment = {}) {
  Words command{program().string()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_process(command, environment);
}

/// The program while it runs; it dies with this object.
class RunningProgram {
 public:
  /// environment: NAME=VALUE, added to that of the test. in_child: called in the new process before
  /// it becomes the program.
  explicit RunningProgram(const Words& arguments, const Words& environment = {},
                          const std::function<void()>& in_child = {}) {
    Words command{program().string()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (auto& word : command) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    errors_ = (folder_ / "stderr").string();
    process_ = fork();
    if (process_ == 0) {
      if (in_child) in_child();
      for (const std::string& variable : environment) putenv(const_cast<char*>(variable.c_str()));
      dup2(open("/dev/null", O_RDWR), STDIN_FILENO);
      dup2(open("/dev/null", O_RDWR), STDOUT_FILENO);
      dup2(open(errors_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
      execv(pointers[0], pointers.data());
      _exit(127);
    }
  }
  ~RunningProgram() {
    if (!ended()) signal(SIGKILL);
    wait();
  }

  void signal(int number) const {
    if (!code_) kill(process_, number);
  }
  int process() const { return process_; }
  bool ended() {
    if (code_) return true;
    int status = 0;
    if (waitpid(process_, &status, WNOHANG) != process_) return false;
    code_ = code_of(status);
    return true;
  }
  /// Exit code; 128 + n if signal n ended it.
  int wait() {
    int status = 0;
    if (!code_ && waitpid(process_, &status, 0) == process_) code_ = code_of(status);
    return code_.value_or(-1);
  }
  /// Waits for a condition or the end of the program. True if the condition came about.
  bool wait_for(const std::function<bool()>& condition) {
    while (!condition()) {
      if (ended()) return condition();
      std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
    return true;
  }
  std::string errors() const { return read_text(errors_); }

 private:
  static int code_of(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  TemporaryFolder folder_;
  std::string errors_;
  pid_t process_ = -1;
  std::optional<int> code_;
};

using Row = nlohmann::ordered_json;

/// The whole rows of metrics.jsonl, those of one event if it is named.
inline std::vector<Row> metric_rows(const std::filesystem::path& run,
                                    const std::string& event = "") {
  std::vector<Row> rows;
  if (!std::filesystem::exists(run / "metrics.jsonl")) return rows;
  std::istringstream lines(read_text(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line) && !lines.eof();) {
    Row row = Row::parse(line, nullptr, false);
    if (row.is_discarded()) {
      ADD_FAILURE() << "a row is no JSON: " << line;
    } else if (event.empty() || row.at("event") == event) {
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

/// Of a row what does not depend on how fast the machine was.
inline Row lasting(const Row& row) {
  Row kept;
  static const std::set<std::string> fleeting{
      "time", "tokens_per_second", "seconds_per_step", "data_wait_fraction",
      "mfu",  "mfu_causal",        "peak_bytes",       "seconds"};
  for (const auto& [key, value] : row.items()) {
    if (!fleeting.contains(key)) kept[key] = value;
  }
  return kept;
}

/// Steps of the committed checkpoints, ascending.
inline std::vector<int64_t> checkpoint_steps(const std::filesystem::path& run) {
  std::vector<int64_t> steps;
  if (!std::filesystem::exists(run / "checkpoints")) return steps;
  for (const auto& entry : std::filesystem::directory_iterator(run / "checkpoints")) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && std::filesystem::exists(entry.path() / "manifest.json"))
      steps.push_back(std::stoll(name.substr(5)));
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

inline std::filesystem::path checkpoint_path(const std::filesystem::path& run, int64_t step) {
  return run / "checkpoints" / fmt::format("step-{:08}", step);
}

/// A real book of the repository, cut into train/, validation/ and test/, and a tokenizer that the
/// program learned from it.
class Workplace {
 public:
  static constexpr int kVocabulary = 400;

  Workplace() {
    const std::string book = read_text(source_folder() / "tests/data/texts/pioneer_days.txt");
    // in thousandths, cut where a line ends
    const auto part = [&](size_t begin, size_t end, const std::string& name) {
      const auto at = [&](size_t share) {
        return share == 1000 ? book.size() : book.find('\n', book.size() * share / 1000) + 1;
      };
      write_text(corpus() / name, book.substr(at(begin), at(end) - at(begin)));
    };
    part(1, 250, "train/one.txt");
    part(250, 500, "train/two.txt");
    part(500, 850, "train/three.txt");
    part(850, 920, "validation/four.txt");
    part(920, 1000, "test/five.txt");
    const auto made = polysketch({"tokenizer", "train", "--recipe", "bpe-bytes", "--vocab-size",
                                  std::to_string(kVocabulary), "--input",
                                  (corpus() / "train").string(), "--output", tokenizer().string()});
    if (made.exit_code != 0) throw std::runtime_error("tokenizer train: " + made.err);
    write_text(config(), yaml());
  }

  const std::filesystem::path& path() const { return folder_.path(); }
  std::filesystem::path corpus() const { return folder_ / "text"; }
  std::filesystem::path tokenizer() const { return folder_ / "book.model"; }
  std::filesystem::path config() const { return folder_ / "tiny.yaml"; }
  std::filesystem::path run(const std::string& name) const { return folder_ / "runs" / name; }

  std::string yaml() const {
    return fmt::format(
        "run: {{name: tiny, directory: {0}/runs/tiny}}\n"
        "model: {{size: custom, layers: 2, width: 32, heads: 2, vocabulary: {1}}}\n"
        "data: {{corpus: text, root: {0}/text, context: 64, cache: {0}/cache, tokenizer: {{path: "
        "{0}/book.model}}}}\n"
        "training: {{batch_tokens: 1024, steps: 20, precision: fp32, device: cpu, threads: 1}}\n"
        "schedule: {{peak: 1e-2, warmup: 3}}\n"
        "evaluation: {{every: 10, tokens: 2k}}\n"
        "checkpoint: {{every: 10, keep_last: 100}}\n"
        "logging: {{every: 1}}\n",
        path().string(), kVocabulary);
  }

  /// `command CONFIG --set run.directory=… --set …`; the run folder is the one of that name.
  Words command(const std::string& what, const std::string& name,
                const Words& settings = {}) const {
    Words words{what, config().string(), "--set", "run.directory=" + run(name).string()};
    for (const auto& setting : settings) {
      words.push_back("--set");
      words.push_back(setting);
    }
    return words;
  }
  Words train_command(const std::string& name, const Words& settings = {}) const {
    return command("train", name, settings);
  }

  /// Trains to the end; fails the test if the program does not succeed.
  ProcessResult train(const std::string& name, const Words& settings = {}) const {
    ProcessResult result = polysketch(train_command(name, settings));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result;
  }

 private:
  TemporaryFolder folder_;
};

/// The workplace of this test program, made once.
inline const Workplace& workplace() {
  static const Workplace place;
  return place;
}

inline double mean_loss(const std::vector<Row>& steps, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += steps.at(i).at("loss").get<double>();
  return sum / static_cast<double>(end - begin);
}

/// The last fifth of the steps is clearly better than the first fifth.
inline void expect_falling_loss(const std::filesystem::path& run, double least) {
  const auto steps = metric_rows(run, "step");
  ASSERT_GE(steps.size(), 5u);
  const size_t fifth = steps.size() / 5;
  EXPECT_LT(mean_loss(steps, steps.size() - fifth, steps.size()),
            mean_loss(steps, 0, fifth) - least);
}

}  // namespace polysketch::test
