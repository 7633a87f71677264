// SPDX-License-Identifier: Apache-2.0
// The CUDA kernel against fp64 arithmetic on the CPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/cuda_module.hpp"

namespace polysketch {
namespace {

constexpr float kScale = 1.0f / 37;

struct Case {
  int64_t rows, vocabulary, row_stride;
  bool bf16;
};

// Logits on the CPU as the kernel sees them (rounded), and everything it gives back.
struct Fixture {
  at::Tensor logits, bias, targets;            // on the CPU: [R, row_stride], [V], [R]
  at::Tensor gpu_logits, loss, bias_gradient;  // on the GPU after run()

  explicit Fixture(const Case& c) {
    at::manual_seed(7);
    logits = (at::randn({c.rows, c.row_stride}) * 4).to(c.bf16 ? at::kBFloat16 : at::kFloat);
    bias = at::randn({c.vocabulary});
    targets = at::randint(0, c.vocabulary, {c.rows}, at::kLong);
    if (c.rows > 2) targets[1] = -1;
    if (c.rows > 4) targets[4] = c.vocabulary;  // outside as well
    if (c.rows > 5) targets[5] = c.vocabulary - 1;
  }

  void run(const Case& c, bool gradient = true) {
    gpu_logits = logits.to(at::kCUDA, /*non_blocking=*/false, /*copy=*/true);
    loss = at::full({c.rows}, 99.0f, at::device(at::kCUDA));
    bias_gradient = at::ones({c.vocabulary}, at::device(at::kCUDA));
    const at::Tensor gpu_bias = bias.to(at::kCUDA), gpu_targets = targets.to(at::kCUDA);
    CudaCrossEntropy a{};
    a.logits = gpu_logits.data_ptr();
    a.bf16 = c.bf16;
    a.gradient = gradient;
    a.row_stride = c.row_stride;
    a.bias = gpu_bias.const_data_ptr<float>();
    a.targets = gpu_targets.const_data_ptr<int64_t>();
    a.loss = loss.data_ptr<float>();
    a.bias_gradient = bias_gradient.data_ptr<float>();
    a.scale = kScale;
    a.rows = c.rows;
    a.vocabulary = c.vocabulary;
    const CudaModule& module = load_cuda_module();
    ASSERT_TRUE(module.cross_entropy(&a, 0)) << module.last_error();
    ASSERT_TRUE(module.synchronize(0)) << module.last_error();
  }
};

class CudaCrossEntropyTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "needs a GPU";
    load_cuda_module();
  }
};

TEST_P(CudaCrossEntropyTest, EqualsDoublePrecision) {
  const Case& c = GetParam();
  Fixture f(c);
  ASSERT_NO_FATAL_FAILURE(f.run(c));
  const at::Tensor z = f.logits.narrow(1, 0, c.vocabulary).to(at::kDouble) + f.bias.to(at::kDouble);
  const at::Tensor counts = f.targets.ge(0).logical_and(f.targets.lt(c.vocabulary));
  const at::Tensor safe = f.targets.where(counts, at::zeros_like(f.targets)).unsqueeze(1);
  const at::Tensor mask = counts.to(at::kDouble);
  const at::Tensor loss = (z.logsumexp(1) - z.gather(1, safe).squeeze(1)) * mask;
  at::Tensor gradient = z.softmax(1);
  gradient.scatter_add_(1, safe, at::full({c.rows, 1}, -1.0, at::kDouble));
  gradient *= mask.unsqueeze(1) * static_cast<double>(kScale);

  EXPECT_LE((f.loss.cpu().to(at::kDouble) - loss).abs().max().item<double>(),
            2e-5 * (1 + loss.abs().max().item<double>()));
  const at::Tensor got = f.gpu_logits.cpu().narrow(1, 0, c.vocabulary).to(at::kDouble);
  const double rounding = c.bf16 ? 1.0 / 256 : 1e-5;
  // A probability near 1 leaves of its difference to 1 no more than the fp32 roundings of its
  // exponential and its division.
  const at::Tensor apart = (got - gradient).abs() - rounding * gradient.abs();
  EXPECT_LE(apart.max().item<double>(), kScale * 0x1p-22)
      << "gradient there " << gradient.flatten()[apart.argmax()].item<double>();
  // The sums are of the stored gradient, on top of the ones that were there.
  EXPECT_TRUE(at::allclose(f.bias_gradient.cpu().to(at::kDouble), got.sum(0) + 1, 1e-5, 1e-6));
  // What lies between the rows is untouched.
  const int64_t padding = c.row_stride - c.vocabulary;
  EXPECT_TRUE(f.gpu_logits.cpu()
                  .narrow(1, c.vocabulary, padding)
                  .equal(f.logits.narrow(1, c.vocabulary, padding)));
}

TEST_P(CudaCrossEntropyTest, WithoutGradientTheLogitsAreOnlyRead) {
  const Case& c = GetParam();
  Fixture with(c), without(c);
  ASSERT_NO_FATAL_FAILURE(with.run(c));
  ASSERT_NO_FATAL_FAILURE(without.run(c, false));
  EXPECT_TRUE(without.gpu_logits.cpu().equal(without.logits));
  EXPECT_TRUE(without.loss.cpu().equal(with.loss.cpu()));
  EXPECT_TRUE(without.bias_gradient.cpu().equal(at::ones({c.vocabulary})));
}

TEST_P(CudaCrossEntropyTest, TwiceTheSameBits) {
  const Case& c = GetParam();
  Fixture first(c), second(c);
  ASSERT_NO_FATAL_FAILURE(first.run(c));
  ASSERT_NO_FATAL_FAILURE(second.run(c));
  EXPECT_TRUE(first.loss.cpu().equal(second.loss.cpu()));
  EXPECT_TRUE(first.gpu_logits.cpu().equal(second.gpu_logits.cpu()));
  EXPECT_TRUE(first.bias_gradient.cpu().equal(second.bias_gradient.cpu()));
}

TEST_P(CudaCrossEntropyTest, NotANumberShows) {
  const Case& c = GetParam();
  Fixture f(c);
  f.logits[0][c.vocabulary / 2] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_NO_FATAL_FAILURE(f.run(c));
  EXPECT_TRUE(std::isnan(f.loss[0].item<float>()));
  EXPECT_FALSE(f.loss.narrow(0, 1, c.rows - 1).isnan().any().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaCrossEntropyTest,
                         testing::Values(Case{6, 1001, 1001, false}, Case{6, 1001, 1008, true},
                                         Case{33, 1001, 1001, true}, Case{64, 50257, 50304, true},
                                         Case{17, 32000, 32000, false}, Case{2, 3, 3, true}));

}  // namespace
}  // namespace polysketch
