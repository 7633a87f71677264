// SPDX-License-Identifier: Apache-2.0
#include "model/model_file.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "helpers/test_helpers.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

/// Into a flat buffer laid out like the masters.
void load_into(const Parameters& parameters, const at::Tensor& flat, const TensorSet& set,
               const std::string& prefix) {
  load_tensors(parameters, set, prefix, [&](size_t index, const at::Tensor& value) {
    const ParameterInfo& info = parameters.infos()[index];
    flat.narrow(0, info.offset, info.count).copy_(value.reshape({-1}));
  });
}

using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

Parameters make_parameters(int64_t layers, int64_t width = 6) {
  Parameters parameters;
  parameters.add("embedding.weight", {50, width}, Initializer::embedding, true);
  for (int64_t i = 0; i < layers; ++i) {
    parameters.add(fmt::format("blocks.{}.weight", i), {width, width + 3},
                   Initializer::lecun_normal, true);
    parameters.add(fmt::format("blocks.{}.gain", i), {width}, Initializer::ones, false);
  }
  parameters.allocate(at::kCPU, at::kFloat);
  parameters.initialize(7);
  return parameters;
}

/// Writes model and moments as each of `world` processes in turn; the buffers of each hold numbers
/// only where it is to write them.
std::vector<FileRecord> write_all(const std::filesystem::path& folder, const Parameters& parameters,
                                  const at::Tensor& masters, const std::vector<at::Tensor>& moments,
                                  int64_t world) {
  std::vector<FileRecord> files;
  for (int64_t rank = 0; rank < world; ++rank) {
    const Peers peers{rank, world, {}};
    const auto only = [&](const at::Tensor& flat, std::pair<int64_t, int64_t> range) {
      at::Tensor part = at::full_like(flat, std::numeric_limits<float>::quiet_NaN());
      part.slice(0, range.first, range.second).copy_(flat.slice(0, range.first, range.second));
      return part;
    };
    const auto own = written_elements(parameters, at::kFloat, 1, rank, world);
    const auto own_moments = written_elements(parameters, at::kFloat, 2, rank, world);
    const std::vector<TensorGroup> groups{
        tensor_group("model", parameters, {{"", only(masters, own[0])}}, peers),
        tensor_group("optimizer", parameters,
                     {{"first_moment.", only(moments[0], own_moments[0])},
                      {"second_moment.", only(moments[1], own_moments[1])}},
                     peers)};
    for (FileRecord& file : write_share(folder, groups, rank, world))
      files.push_back(std::move(file));
  }
  return files;
}

/// What any number of processes write, each from its own part alone, is read as it was.
TEST(ModelFile, EachWritesItsPartAndAllIsRead) {
  Parameters parameters = make_parameters(3);
  const at::Tensor masters = parameters.flat_master();
  const std::vector<at::Tensor> moments{masters * 2 + 1, masters.abs() + 3};
  for (const int64_t world : {1, 2, 3, 9}) {
    const TemporaryFolder folder;
    const auto files = write_all(folder.path(), parameters, masters, moments, world);
    const TensorSet model(folder.path(), files, "model"),
        optimizer(folder.path(), files, "optimizer");
    EXPECT_EQ(model.tensors().size(), parameters.infos().size());
    EXPECT_EQ(optimizer.tensors().size(), 2 * parameters.infos().size());
    at::Tensor read = at::zeros_like(masters), first = at::zeros_like(masters),
               second = at::zeros_like(masters);
    load_into(parameters, read, model, "");
    load_into(parameters, first, optimizer, "first_moment.");
    load_into(parameters, second, optimizer, "second_moment.");
    for (const ParameterInfo& info : parameters.infos()) {
      const auto of = [&](const at::Tensor& flat) {
        return flat.narrow(0, info.offset, info.count);
      };
      EXPECT_TRUE(of(read).equal(of(masters))) << info.name << ", " << world << " processes";
      EXPECT_TRUE(of(first).equal(of(moments[0]))) << info.name << ", " << world << " processes";
      EXPECT_TRUE(of(second).equal(of(moments[1]))) << info.name << ", " << world << " processes";
    }
  }
}

TEST(ModelFile, OnlyTheOwnPartIsCopied) {
  Parameters parameters = make_parameters(8);
  int64_t all = 0;
  for (int64_t rank = 0; rank < 4; ++rank) {
    const TensorGroup group =
        tensor_group("model", parameters, {{"", parameters.flat_master()}}, {rank, 4, {}});
    EXPECT_EQ(group.tensors.size(), parameters.infos().size()) << "names of all";
    EXPECT_LT(std::static_pointer_cast<const at::Tensor>(group.owned.at(0))->numel(),
              parameters.flat_master().numel() / 2);
    for (const TensorView& tensor : group.tensors) all += tensor.data != nullptr ? 1 : 0;
  }
  EXPECT_EQ(all, static_cast<int64_t>(parameters.infos().size())) << "each is written by one";
}

TEST(ModelFile, ListsTenDifferencesOverAllFiles) {
  Parameters saved = make_parameters(9), wanted = make_parameters(2, 7);
  const TemporaryFolder folder;
  const auto files = write_all(folder.path(), saved, saved.flat_master(),
                               {saved.flat_master(), saved.flat_master()}, 3);
  const TensorSet set(folder.path(), files, "model");
  try {
    load_into(wanted, wanted.flat_master(), set, "");
    ADD_FAILURE() << "another model was read";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::no_checkpoint);
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("model-*-of-00003.safetensors"),
                      HasSubstr("embedding.weight is F32 [50, 6], the model wants F32 [50, 7]"),
                      HasSubstr("blocks.2.weight is not a parameter of this model"),
                      HasSubstr("and 9 more")));
  }
}

TEST(ModelFile, RefusesNumbersThatAreNotFinite) {
  Parameters parameters = make_parameters(2);
  at::Tensor bad = parameters.flat_master().clone();
  bad[parameters.infos().back().offset + 1].fill_(std::numeric_limits<float>::infinity());
  const TemporaryFolder folder;
  const auto files = write_all(folder.path(), parameters, bad, {bad, bad}, 2);
  try {
    load_into(parameters, parameters.flat_master(), TensorSet(folder.path(), files, "model"), "");
    ADD_FAILURE() << "an infinite number was read";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::no_checkpoint);
    EXPECT_THAT(error.what(), HasSubstr("blocks.1.gain holds values that are not finite"));
  }
}

}  // namespace
}  // namespace polysketch
