// SPDX-License-Identifier: Apache-2.0
// A run from its YAML file to its last checkpoint, and what its folder holds.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "acceptance/workplace.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/tensor_file.hpp"
#include "support/hash.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct Variant {
  std::string attention, precision;
};

class Train : public testing::TestWithParam<Variant> {};

TEST_P(Train, LearnsFromABook) {
  const auto& [attention, precision] = GetParam();
  const fs::path run = workplace().run("learn");
  fs::remove_all(run);
  workplace().train("learn", {"attention.kind=" + attention, "attention.degree=4",
                              "training.precision=" + precision});

  const auto steps = metric_rows(run, "step");
  ASSERT_EQ(steps.size(), 20u);
  // A model that knows nothing is worth log V.
  EXPECT_NEAR(steps[0].at("loss").get<double>(), std::log(Workplace::kVocabulary), 1.0);
  expect_falling_loss(run, 0.5);
  // Without seeing the validation text it has learned something about it.
  const auto validations = metric_rows(run, "validation");
  ASSERT_EQ(validations.size(), 2u);
  EXPECT_LT(validations[1].at("loss").get<double>(), validations[0].at("loss").get<double>());
}

INSTANTIATE_TEST_SUITE_P(Kinds, Train,
                         testing::Values(Variant{"softmax", "fp32"}, Variant{"softmax", "bf16"},
                                         Variant{"polynomial", "fp32"},
                                         Variant{"polynomial", "bf16"}),
                         [](const auto& given) {
                           return given.param.attention + "_" + given.param.precision;
                         });

/// Frames of a TFRecord file with both checksums right; what stands behind the last one is not a
/// record.
size_t count_records(const std::string& bytes) {
  size_t records = 0, at = 0;
  while (at + 12 <= bytes.size()) {
    uint64_t length = 0;
    uint32_t length_crc = 0, crc = 0;
    std::memcpy(&length, bytes.data() + at, 8);
    std::memcpy(&length_crc, bytes.data() + at + 8, 4);
    if (length_crc != masked_crc32c(bytes.data() + at, 8) || at + 16 + length > bytes.size()) break;
    std::memcpy(&crc, bytes.data() + at + 12 + length, 4);
    if (crc != masked_crc32c(bytes.data() + at + 12, length)) break;
    at += 16 + length;
    ++records;
  }
  EXPECT_EQ(at, bytes.size()) << "bytes that are no record";
  return records;
}

TEST(RunFolder, HoldsWhatTheContractSays) {
  const fs::path run = workplace().run("folder");
  const ProcessResult result = workplace().train("folder", {"training.steps=12"});
  EXPECT_EQ(result.out, "") << "figures of a run stand in its folder; standard output stays free";

  for (const char* name : {"config.yaml", "run.json", "metrics.jsonl", "log.txt"})
    EXPECT_TRUE(fs::is_regular_file(run / name)) << name;
  EXPECT_EQ(checkpoint_steps(run), (std::vector<int64_t>{10, 12}));
  for (const char* name : {"manifest.json", "model.safetensors", "optimizer.safetensors"})
    EXPECT_TRUE(fs::is_regular_file(checkpoint_path(run, 10) / name)) << name;
  EXPECT_THAT(read_text(run / "log.txt"), HasSubstr("step"));
  const Row about = Row::parse(read_text(run / "run.json"));
  EXPECT_TRUE(about.contains("build") && about.contains("machine"));

  size_t records = 0;
  for (const auto& entry : fs::directory_iterator(run / "tensorboard")) {
    EXPECT_THAT(entry.path().filename().string(), HasSubstr("events.out.tfevents."));
    records += count_records(read_text(entry.path()));
  }
  EXPECT_GT(records, 12u) << "one event a step and the file version";
}

TEST(RunFolder, MetricsRowsAreComplete) {
  const fs::path run = workplace().run("rows");
  workplace().train("rows", {"training.steps=12"});
  const auto all = metric_rows(run);
  EXPECT_EQ(all.front().at("event"), "start");
  EXPECT_EQ(all.back().at("event"), "end");
  const auto steps = metric_rows(run, "step");
  ASSERT_EQ(steps.size(), 12u);
  std::set<std::string> digests;
  for (size_t i = 0; i < steps.size(); ++i) {
    const Row& row = steps[i];
    for (const char* key : {"event", "step", "tokens", "loss", "perplexity", "learning_rate",
                            "gradient_norm", "tokens_per_second", "data_wait_fraction",
                            "token_digest", "peak_bytes", "seconds_per_step", "epoch", "time"})
      ASSERT_TRUE(row.contains(key)) << key;
    EXPECT_EQ(row["step"], i + 1);
    EXPECT_EQ(row["tokens"], 1024 * (i + 1));
    EXPECT_NEAR(row["perplexity"].get<double>(), std::exp(row["loss"].get<double>()),
                1e-9 * row["perplexity"].get<double>());
    EXPECT_GT(row["tokens_per_second"].get<double>(), 0);
    EXPECT_GE(row["data_wait_fraction"].get<double>(), 0);
    EXPECT_LE(row["data_wait_fraction"].get<double>(), 1);
    EXPECT_EQ(row["token_digest"].get<std::string>().size(), 16u);
    digests.insert(row["token_digest"].get<std::string>());
  }
  EXPECT_EQ(digests.size(), steps.size()) << "every step consumes tokens, so its digest is new";
  const Row validation = metric_rows(run, "validation").at(0);
  for (const char* key : {"loss", "perplexity", "tokens_scored"})
    EXPECT_TRUE(validation.contains(key)) << key;
  const Row checkpoint = metric_rows(run, "checkpoint").at(0);
  EXPECT_TRUE(fs::is_directory(checkpoint.at("path").get<std::string>()));
}

TEST(RunFolder, ItsConfigurationRepeatsTheRun) {
  const fs::path first = workplace().run("first"), again = workplace().run("again");
  workplace().train("first", {"training.steps=5", "attention.kind=polynomial", "run.seed=7"});
  const ProcessResult result = polysketch(
      {"train", (first / "config.yaml").string(), "--set", "run.directory=" + again.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(read_text(checkpoint_path(first, 5) / "model.safetensors"),
            read_text(checkpoint_path(again, 5) / "model.safetensors"));
}

TEST(RunFolder, CheckpointHoldsFp32MastersAndMoments) {
  const fs::path run = workplace().run("tensors");
  workplace().train("tensors",
                    {"training.steps=2", "schedule.warmup=1", "training.precision=bf16"});
  const TensorFile model(checkpoint_path(run, 2) / "model.safetensors"),
      optimizer(checkpoint_path(run, 2) / "optimizer.safetensors");
  int64_t numbers = 0;
  for (const TensorInfo& tensor : model.tensors()) {
    EXPECT_EQ(tensor.type, DataType::f32) << tensor.name;
    int64_t count = 1;
    for (const int64_t extent : tensor.shape) count *= extent;
    numbers += count;
    for (const char* prefix : {"first_moment.", "second_moment."}) {
      const TensorInfo* moment = optimizer.find(prefix + tensor.name);
      ASSERT_NE(moment, nullptr) << prefix << tensor.name;
      EXPECT_EQ(moment->shape, tensor.shape);
    }
  }
  EXPECT_EQ(optimizer.tensors().size(), 2 * model.tensors().size());
  EXPECT_EQ(numbers, metric_rows(run, "start").at(0).at("parameters").get<int64_t>());
  // Appendix H's count for C = 32, G = 80, L = 2: embedding, bias of the logits, final norm, and
  // two blocks.
  EXPECT_EQ(numbers, 400 * 32 + 400 + 2 * 32 + 2 * (4 * 32 * 32 + 3 * 80 * 32 + 4 * 32));
}

TEST(RunFolder, AFinishedRunIsLeftAlone) {
  const fs::path run = workplace().run("finished");
  workplace().train("finished", {"training.steps=3"});
  const std::string before = read_text(run / "metrics.jsonl");
  const ProcessResult again = workplace().train("finished", {"training.steps=3"});
  EXPECT_THAT(again.err, HasSubstr("nothing to do"));
  std::vector<Row> steps = metric_rows(run, "step");
  EXPECT_EQ(steps.size(), 3u);
  EXPECT_EQ(checkpoint_steps(run), (std::vector<int64_t>{3}));
}

}  // namespace
}  // namespace polysketch::test
