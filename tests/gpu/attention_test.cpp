// SPDX-License-Identifier: Apache-2.0
// Every attention mechanism on the GPU against its dense form in fp64 on the CPU.
#include <gtest/gtest.h>

#include <array>

#include "attention/dense_reference.hpp"
#include "attention/mechanisms.hpp"
#include "helpers/tolerances.hpp"
#include "support/cuda_module.hpp"

namespace polysketch {
namespace {

using test::normal;
using test::relative_error;

class OnTheGpu : public testing::TestWithParam<test::Mechanism> {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "needs a GPU";
  }
};
INSTANTIATE_TEST_SUITE_P(All, OnTheGpu, testing::ValuesIn(test::mechanisms()),
                         [](const auto& tested) { return tested.param.name; });

TEST_P(OnTheGpu, OutputsAndGradientsEqualTheDenseForm) {
  Philox random(51, RandomPurpose::test);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const bool packed : {false, true}) {
      AttentionConfig config = GetParam().config;
      config.block = config.window = 128;
      const int64_t length = 500;
      const auto attention =
          make_attention(config, {2, 64}, at::device(at::kCUDA).dtype(at::kFloat));
      const Documents documents =
          packed ? test::random_documents(2, length, random, 200) : Documents();
      std::array<at::Tensor, 3> x, wide;
      // A divisor of Performer's up to 1e-6 is made larger by 2e-6 (the authors' rule): a row whose
      // divisor is near that is three times as large on one side. Shorter queries and keys stay
      // away from there.
      const double size = config.kind == AttentionKind::performer ? 0.5 : 1;
      for (size_t i = 0; i < 3; ++i) {
        const at::Tensor value = normal({2, 2, length, 64}, random, type) * size;
        x[i] = value.to(at::kCUDA).requires_grad_();
        wide[i] = value.to(at::kDouble).requires_grad_();
      }
      test::NamedTensors parameters;
      for (auto& one : attention->parameters())
        parameters[one.name] = one.value.detach().to(at::kCPU, at::kDouble).requires_grad_();
      for (auto& one : attention->constants())
        parameters[one.name] = one.value.to(at::kCPU, at::kDouble);
      const at::Tensor cotangent = normal({2, 2, length, 64}, random, type);
      const at::Tensor got = attention->forward(x[0], x[1], x[2], documents);
      const at::Tensor want =
          test::dense_attention(config, parameters, wide[0], wide[1], wide[2], documents);
      got.backward(cotangent.to(at::kCUDA));
      want.backward(cotangent.to(at::kDouble));
      const bool brain = type == at::kBFloat16;
      const double bound = !brain               ? test::tolerance::kSingle
                           : config.degree == 8 ? test::tolerance::kBrainDegree8
                                                : test::tolerance::kBrain;
      EXPECT_LE(relative_error(got.detach().cpu(), want.detach()), bound)
          << type << (packed ? ", documents" : "");
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_LE(relative_error(x[i].grad().cpu(), wide[i].grad()),
                  brain ? test::tolerance::kBrainFewRows : 10 * test::tolerance::kSingle)
            << "gradient " << i << ", " << type << (packed ? ", documents" : "");
      }
    }
  }
}

}  // namespace
}  // namespace polysketch
