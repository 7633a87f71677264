// SPDX-License-Identifier: Apache-2.0
// Rows of weights and what is read off them, against dense forms in fp64.
#include "attention/weight_rows.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "attention/dense_reference.hpp"
#include "attention/mechanisms.hpp"
#include "attention/weight_figures.hpp"
#include "helpers/tolerances.hpp"

namespace polysketch {
namespace {

using test::Mechanism;
using test::normal;
using test::relative_error;
using test::tolerance::kReordered64;

constexpr int64_t kWidth = 8;

class EachKind : public testing::TestWithParam<Mechanism> {
 protected:
  void SetUp() override {
    at::manual_seed(1);
    Philox random(51, RandomPurpose::test);
    const at::NoGradGuard no_grad;
    attention_ = make_attention(GetParam().config, {2, kWidth}, at::kDouble, {7, 1});
    for (auto& parameter : attention_->parameters())
      parameter.value.add_(normal(parameter.value.sizes(), random) * 0.1);
    q_ = normal({2, 2, 100, kWidth}, random);
    k_ = normal({2, 2, 100, kWidth}, random);
    v_ = normal({2, 2, 100, kWidth}, random);
    for (auto& parameter : attention_->parameters())
      parameters_[parameter.name] = parameter.value.detach();
    for (auto& constant : attention_->constants()) parameters_[constant.name] = constant.value;
  }
  WeightRows rows_at(const at::Tensor& positions) const {
    return attention_->weights_of_rows(q_.index_select(2, positions), k_, positions);
  }
  at::Tensor own_norm(const at::Tensor& x, const std::string& name) const {
    if (parameters_.contains(name + ".gain")) return test::dense_norm(x, parameters_, name);
    return at::layer_norm(x, {kWidth}, {}, {}, 1e-5);
  }

  std::unique_ptr<Attention> attention_;
  at::Tensor q_, k_, v_;
  test::NamedTensors parameters_;
};
INSTANTIATE_TEST_SUITE_P(All, EachKind, testing::ValuesIn(test::mechanisms()),
                         [](const auto& tested) { return tested.param.name; });

TEST_P(EachKind, WeighsAsTheDenseFormDoes) {
  const at::Tensor want = test::dense_attention(GetParam().config, parameters_, q_, k_, v_);
  for (const at::Tensor& positions :
       {at::arange(100), at::tensor({0, 1, 31, 32, 33, 64, 99}), at::tensor({50})}) {
    const WeightRows rows = rows_at(positions);
    ASSERT_EQ(rows.weights.sizes(), (std::vector<int64_t>{2, 2, positions.size(0), 100}));
    EXPECT_TRUE(rows.weights.ge(0).all().item<bool>());
    const at::Tensor later = at::arange(100).unsqueeze(0).gt(positions.unsqueeze(1));
    EXPECT_EQ((rows.weights * later).abs().max().item<double>(), 0) << "later keys";
    const at::Tensor got = at::matmul(rows.weights, v_) / rows.divisor.unsqueeze(3);
    EXPECT_LE(relative_error(got, want.index_select(2, positions)), kReordered64);
  }
}

TEST_P(EachKind, NarrowInputsTellTheSame) {
  const at::Tensor positions = at::tensor({3, 40, 99});
  const auto attention = make_attention(GetParam().config, {2, kWidth}, at::kFloat, {7, 1});
  {
    const at::NoGradGuard no_grad;
    for (auto& parameter : attention->parameters())
      parameter.value.copy_(parameters_.at(parameter.name));
  }
  const at::Tensor q = q_.to(at::kBFloat16), k = k_.to(at::kBFloat16);
  const at::Tensor got =
      attention->weights_of_rows(q.index_select(2, positions), k, positions).weights;
  const at::Tensor want = attention_
                              ->weights_of_rows(q.to(at::kDouble).index_select(2, positions),
                                                k.to(at::kDouble), positions)
                              .weights;
  EXPECT_LE(relative_error(got, want), test::tolerance::kSingle)
      << "computed in fp32 from the same bf16 vectors";
}

TEST_P(EachKind, HasTheQuantitiesOfItsKind) {
  const AttentionConfig& config = GetParam().config;
  const WeightRows rows = rows_at(at::arange(100));
  const bool sketched = config.kind == AttentionKind::polysketch;
  const bool features =
      config.kind == AttentionKind::performer || config.kind == AttentionKind::hedgehog;
  const WeightFigures figures = weight_figures(rows);
  EXPECT_EQ(figures.sketch_error.has_value(), sketched);
  EXPECT_EQ(figures.share_outside_block.has_value(), sketched || features);
  EXPECT_EQ(figures.largest_score.has_value(), !features);
  EXPECT_EQ(figures.smallest_normaliser, rows.divisor.min().item<double>());
  EXPECT_GE(figures.effective_rank, 1);
  EXPECT_LE(figures.effective_rank, 100);
  if (config.kind == AttentionKind::softmax) {
    const at::Tensor scores =
        at::matmul(q_, k_.transpose(2, 3)) / std::sqrt(static_cast<double>(kWidth));
    EXPECT_NEAR(*figures.largest_score,
                scores.masked_fill(test::visible(100).logical_not(), -1e9).max().item<double>(),
                1e-12);
  }
  if (config.kind == AttentionKind::polynomial) {
    const at::Tensor scores =
        at::matmul(own_norm(q_, "norm"), own_norm(k_, "norm").transpose(2, 3)).abs();
    EXPECT_NEAR(*figures.largest_score, (scores * test::visible(100)).max().item<double>(), 1e-9);
  }
}

TEST_P(EachKind, ErrorOfTheSketchIsThatAgainstExactWeightsBehindItsOwnNorms) {
  const AttentionConfig& config = GetParam().config;
  if (config.kind != AttentionKind::polysketch) return;  // no sketch
  const bool learned = config.sketch == SketchKind::learned;
  const at::Tensor normed_q = own_norm(q_, learned ? "query_norm" : "norm"),
                   normed_k = own_norm(k_, learned ? "key_norm" : "norm");
  const auto sketch = [&](const at::Tensor& x) {
    return test::dense_sketch(x, config.degree / 2, parameters_, "sketch", learned);
  };
  const at::Tensor seen = test::visible(100);
  const at::Tensor exact =
      at::matmul(normed_q, normed_k.transpose(2, 3)).pow(static_cast<double>(config.degree)) * seen;
  const at::Tensor estimate =
      at::matmul(sketch(learned ? q_ : normed_q), sketch(learned ? k_ : normed_k).transpose(2, 3))
          .square() *
      seen;
  const double want = ((estimate - exact).norm() / exact.norm()).item<double>();
  EXPECT_NEAR(*weight_figures(rows_at(at::arange(100))).sketch_error, want, 1e-9 * (1 + want));
}

/// Rows by hand: [1, 1, n, T].
WeightRows by_hand(const at::Tensor& weights, int64_t block) {
  WeightRows rows;
  rows.positions = at::arange(weights.size(1) - weights.size(0), weights.size(1));
  rows.weights = weights.to(at::kDouble).view({1, 1, weights.size(0), weights.size(1)});
  rows.divisor = rows.weights.sum(3) + 1;
  rows.block = block;
  return rows;
}

TEST(WeightFigures, ByHand) {
  // Queries 2 and 3 of four, blocks of two: half of the first row's weight and 9/10 of the second's
  // lie outside.
  WeightRows rows = by_hand(at::tensor({2.0, 2.0, 4.0, 0.0, 8.0, 1.0, 1.0, 0.0}).view({2, 4}), 2);
  rows.largest_score = at::tensor({1.5, 7.0}, at::kDouble).view({1, 1, 2});
  rows.exact = rows.weights;
  rows.sketched = rows.weights.clone();
  rows.sketched.view({-1})[0] += 3;
  const WeightFigures figures = weight_figures(rows);
  EXPECT_NEAR(*figures.share_outside_block, (0.5 + 0.9) / 2, 1e-15);
  EXPECT_EQ(figures.smallest_normaliser, 9);
  EXPECT_EQ(*figures.largest_score, 7);
  EXPECT_NEAR(*figures.sketch_error, 3 / std::sqrt(4.0 + 4 + 16 + 64 + 1 + 1), 1e-15);
  // Singular values of [[2, 2, 4, 0] / 9, [8, 1, 1, 0] / 11] from the eigenvalues of its Gram
  // matrix.
  const double a = 24.0 / 81, b = 66.0 / 121, c = 22.0 / 99,
               root = std::sqrt((a - b) * (a - b) / 4 + c * c);
  const double s = std::sqrt((a + b) / 2 + root), t = std::sqrt((a + b) / 2 - root),
               p = s / (s + t);
  EXPECT_NEAR(figures.effective_rank, std::exp(-p * std::log(p) - (1 - p) * std::log(1 - p)),
              1e-12);
}

TEST(WeightFigures, RankCountsRowsThatDiffer) {
  EXPECT_NEAR(weight_figures(by_hand(at::eye(5), 0)).effective_rank, 5, 1e-12);
  EXPECT_NEAR(weight_figures(by_hand(at::ones({5, 9}), 0)).effective_rank, 1, 1e-6) << "all alike";
  EXPECT_NEAR(weight_figures(by_hand(at::cat({at::eye(3), at::eye(3)}), 0)).effective_rank, 3,
              1e-6);
}

TEST(WeightFigures, NoWeightsOddWeightsAndNothingOutside) {
  const WeightFigures none = weight_figures(by_hand(at::zeros({3, 6}), 2));
  EXPECT_EQ(none.effective_rank, 0);
  EXPECT_FALSE(none.share_outside_block.has_value()) << "no weight, no share";
  EXPECT_FALSE(none.sketch_error.has_value());
  EXPECT_FALSE(none.largest_score.has_value());
  EXPECT_FALSE(weight_figures(by_hand(at::ones({3, 6}), 6)).share_outside_block.has_value())
      << "one block is all there is";
  EXPECT_FALSE(weight_figures(by_hand(at::ones({3, 6}), 0)).share_outside_block.has_value())
      << "no blocks";
  for (const double odd :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    at::Tensor weights = at::ones({3, 6}, at::kDouble);
    weights[1][2] = odd;
    EXPECT_TRUE(std::isnan(weight_figures(by_hand(weights, 2)).effective_rank)) << odd;
  }
}

}  // namespace
}  // namespace polysketch
