// SPDX-License-Identifier: Apache-2.0
#include "attention/polynomial_attention.hpp"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <sstream>

#include "attention/dense_reference.hpp"
#include "attention/each_instruction_set.hpp"
#include "helpers/tolerances.hpp"

namespace polysketch {
namespace {

using test::normal;
using test::relative_error;

/// Inputs, a cotangent, and what the two sides made of them: output, then gradients of q, k, v and
/// of gain and bias if there are any.
struct Case {
  std::vector<at::Tensor> leaves;  // q, k, v, [gain, bias], fp64
  at::Tensor cotangent;
  int64_t degree = 4;
  Documents documents;
};

Case random_case(Philox& random, int64_t batch, int64_t heads, int64_t length, int64_t width,
                 int64_t degree, bool norm, at::ScalarType type) {
  Case c;
  // Without the norm, scores below 1 keep the powers of large degrees at the size of the 1 of the
  // normaliser.
  const double size = norm ? 1 : 0.8 / std::sqrt(std::sqrt(static_cast<double>(width)));
  for (int i = 0; i < 3; ++i)
    c.leaves.push_back((normal({batch, heads, length, width}, random) * (i == 2 ? 1 : size))
                           .to(type)
                           .to(at::kDouble));
  if (norm) {
    c.leaves.push_back(1 + 0.2 * normal({width}, random));
    c.leaves.push_back(0.2 * normal({width}, random));
  }
  c.cotangent = normal({batch, heads, length, width}, random).to(type).to(at::kDouble);
  c.degree = degree;
  return c;
}

std::vector<at::Tensor> with_gradients(
    const Case& c, at::ScalarType type,
    const std::function<at::Tensor(const std::vector<at::Tensor>&)>& f) {
  std::vector<at::Tensor> leaves;
  for (size_t i = 0; i < c.leaves.size(); ++i) {
    // Parameters stay in fp32 beside bf16 activations.
    const at::ScalarType own = i >= 3 && type == at::kBFloat16 ? at::kFloat : type;
    leaves.push_back(c.leaves[i].to(own).detach().clone().requires_grad_());
  }
  const at::Tensor output = f(leaves);
  output.backward(c.cotangent.to(type));
  std::vector<at::Tensor> all{output.detach()};
  for (const auto& leaf : leaves) all.push_back(leaf.grad());
  return all;
}

std::vector<at::Tensor> dense(const Case& c) {
  return with_gradients(c, at::kDouble, [&](const std::vector<at::Tensor>& x) {
    return x.size() == 3
               ? test::dense_polynomial(x[0], x[1], x[2], c.degree, c.documents)
               : test::dense_polynomial_normed(x[0], x[1], x[2], x[3], x[4], c.degree, c.documents);
  });
}

std::vector<at::Tensor> blocked(const Case& c, at::ScalarType type, int64_t tile = 0) {
  return with_gradients(c, type, [&](const std::vector<at::Tensor>& x) {
    PolynomialOptions options{c.degree, {}, {}, c.documents, tile};
    if (x.size() > 3) {
      options.gain = x[3];
      options.bias = x[4];
    }
    return polynomial_attention(x[0], x[1], x[2], options);
  });
}

constexpr const char* kNames[] = {"output", "dq", "dk", "dv", "dgain", "dbias"};

void expect_close(const std::vector<at::Tensor>& value, const std::vector<at::Tensor>& reference,
                  double bound, const std::string& what) {
  ASSERT_EQ(value.size(), reference.size());
  for (size_t i = 0; i < value.size(); ++i) {
    const double error = relative_error(value[i], reference[i]);
    EXPECT_LE(error, bound) << kNames[i] << " of " << what;
    if (!(error <= bound)) return;
  }
}

std::string describe(const Case& c, int64_t tile = 0) {
  std::ostringstream text;
  text << "q " << c.leaves[0].sizes() << " degree " << c.degree
       << (c.leaves.size() > 3 ? " normed" : "") << (c.documents.defined() ? " documents" : "")
       << " tile " << tile;
  return text.str();
}

template <class List>
auto pick(Philox& random, const List& list) {
  return list[random.bounded(std::size(list))];
}

using test::EachInstructionSet;
INSTANTIATE_TEST_SUITE_P(Polynomial, EachInstructionSet, test::instruction_sets(),
                         test::instruction_set_name);

TEST(Polynomial, BlockedEqualsDenseInDouble) {
  const test::ThreadCount one(1);  // thousands of tiny calls
  Philox random(1, RandomPurpose::test);
  for (int i = 0; i < 220; ++i) {
    const int64_t batch = 1 + static_cast<int64_t>(random.bounded(3)),
                  heads = 1 + static_cast<int64_t>(random.bounded(4));
    const int64_t length = 1 + static_cast<int64_t>(random.bounded(90));
    // the norm of one or two numbers has no gradient to speak of
    const int64_t width = 4 + static_cast<int64_t>(random.bounded(40));
    const int64_t tile = 1 + static_cast<int64_t>(random.bounded(40));
    Case c = random_case(random, batch, heads, length, width,
                         pick(random, std::array<int64_t, 5>{2, 4, 6, 8, 10}),
                         random.bounded(2) == 0, at::kDouble);
    if (random.bounded(3) == 0) c.documents = test::random_documents(batch, length, random, 12);
    expect_close(blocked(c, at::kDouble, tile), dense(c), test::tolerance::kReordered64,
                 describe(c, tile));
    if (HasFailure()) return;
  }
}

// Widths with and without a full register, lengths around the sizes of groups, panels and blocks,
// documents that cut them anywhere.
constexpr std::array<int64_t, 9> kWidths{16, 32, 48, 64, 80, 96, 128, 8, 20};
constexpr std::array<int64_t, 14> kLengths{1, 2, 5, 6, 7, 63, 64, 65, 127, 190, 192, 193, 257, 400};

TEST_P(EachInstructionSet, SingleCloseToDense) {
  Philox random(2, RandomPurpose::test);
  for (int i = 0; i < 80; ++i) {
    const int64_t batch = 1 + static_cast<int64_t>(random.bounded(2)),
                  heads = 1 + static_cast<int64_t>(random.bounded(3));
    const int64_t degree = pick(random, std::array<int64_t, 4>{2, 4, 6, 8}),
                  length = pick(random, kLengths), width = pick(random, kWidths);
    // Normed vectors have large scores: the first rows then give all their weight to one key, and
    // dO·(v - o) is mostly rounding.
    const bool norm = length >= 63 && random.bounded(2) == 0;
    Case c = random_case(random, batch, heads, length, width, degree, norm, at::kFloat);
    if (random.bounded(3) == 0) c.documents = test::random_documents(batch, length, random, 50);
    expect_close(blocked(c, at::kFloat), dense(c), test::tolerance::kSingle, describe(c));
    if (HasFailure()) return;
  }
}

TEST_P(EachInstructionSet, BrainCloseToDense) {
  Philox random(8, RandomPurpose::test);
  for (int i = 0; i < 60; ++i) {
    const int64_t batch = 1 + static_cast<int64_t>(random.bounded(2)),
                  heads = 1 + static_cast<int64_t>(random.bounded(3));
    const int64_t degree = pick(random, std::array<int64_t, 4>{2, 4, 6, 8}),
                  length = pick(random, kLengths), width = pick(random, kWidths);
    const bool norm = length >= 63 && random.bounded(2) == 0;
    const Case c = random_case(random, batch, heads, length, width, degree, norm, at::kBFloat16);
    const auto value = blocked(c, at::kBFloat16), reference = dense(c);
    EXPECT_LE(relative_error(value[0], reference[0]), test::tolerance::kBrain) << describe(c);
    expect_close(value, reference, test::tolerance::kBrainFewRows, describe(c));
    if (HasFailure()) return;
  }
}

TEST_P(EachInstructionSet, BrainGradientsCloseToDenseAtTheModelsWidth) {
  Philox random(9, RandomPurpose::test);
  for (const int64_t degree : {2, 4, 8}) {
    const Case c = random_case(random, 2, 6, 512, 64, degree, true, at::kBFloat16);
    expect_close(blocked(c, at::kBFloat16), dense(c), test::tolerance::kBrain, describe(c));
  }
}

TEST(Polynomial, GradientsMatchCentralDifferences) {
  const test::ThreadCount one(1);
  Philox random(3, RandomPurpose::test);
  constexpr double kStep = 1e-5;
  for (const int64_t degree : {2, 4, 8, 6}) {
    Case c = random_case(random, 1, 2, 7, 4, degree, /*norm=*/true, at::kDouble);
    c.documents = degree == 6 ? test::random_documents(1, 7, random, 3) : Documents();
    const auto loss = [&](const std::vector<at::Tensor>& x) {
      const at::NoGradGuard no_grad;
      return (polynomial_attention(x[0], x[1], x[2],
                                   {degree, x[3], x[4], c.documents, /*tile=*/3}) *
              c.cotangent)
          .sum()
          .item<double>();
    };
    const auto analytic = blocked(c, at::kDouble, 3);
    for (size_t leaf = 0; leaf < c.leaves.size(); ++leaf) {
      at::Tensor numeric = at::empty_like(c.leaves[leaf]);
      double* entry = c.leaves[leaf].mutable_data_ptr<double>();
      for (int64_t i = 0; i < numeric.numel(); ++i) {
        const double before = entry[i];
        entry[i] = before + kStep;
        const double up = loss(c.leaves);
        entry[i] = before - kStep;
        const double down = loss(c.leaves);
        entry[i] = before;
        numeric.mutable_data_ptr<double>()[i] = (up - down) / (2 * kStep);
      }
      EXPECT_LE(relative_error(analytic[leaf + 1], numeric), test::tolerance::kCentralDifference)
          << kNames[leaf + 1] << ", degree " << degree;
    }
  }
}

// Heads are cut into pieces where there are more threads than heads; neither that nor who computes
// what may show.
TEST_P(EachInstructionSet, ThreadsDoNotChangeAnyBit) {
  Philox random(4, RandomPurpose::test);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Case c = random_case(random, 1, 1, 1700, 32, 4, true, type);
    std::vector<at::Tensor> alone;
    {
      const test::ThreadCount one(1);
      alone = blocked(c, type);
    }
    const test::ThreadCount several(5);
    const auto together = blocked(c, type);
    // LibTorch's own sums depend on the number of threads; ours do not.
    const bool exact = GetParam() >= kernels::InstructionSet::avx512;
    for (size_t i = 0; i < alone.size(); ++i) {
      if (exact) {
        EXPECT_TRUE(alone[i].equal(together[i])) << kNames[i];
      } else {
        EXPECT_LE(relative_error(together[i], alone[i]), test::tolerance::kReorderedBrain)
            << kNames[i];
      }
    }
  }
}

TEST_P(EachInstructionSet, StridesOfInputsDoNotMatter) {
  Philox random(5, RandomPurpose::test);
  const Case c = random_case(random, 2, 3, 70, 32, 4, true, at::kFloat);
  Case strided = c;
  // rows of a token side by side, as the model has them
  strided.leaves[0] = c.leaves[0].transpose(1, 2).contiguous().transpose(1, 2);
  const auto run = [&](const Case& x, bool keep) {
    std::vector<at::Tensor> leaves;
    for (const auto& leaf : x.leaves)
      leaves.push_back(keep ? leaf.to(at::kFloat)
                            : leaf.to(at::kFloat).transpose(0, -1).contiguous().transpose(0, -1));
    return polynomial_attention(leaves[0], leaves[1], leaves[2], {4, leaves[3], leaves[4], {}, 0});
  };
  const at::Tensor plain = run(c, true);
  EXPECT_TRUE(plain.equal(run(strided, true)));
  EXPECT_TRUE(plain.equal(run(c, false)));  // numbers of a row apart from each other
  EXPECT_TRUE(plain.transpose(1, 2).is_contiguous());
}

TEST_P(EachInstructionSet, ZeroRowsGiveZerosAndFiniteGradients) {
  Philox random(6, RandomPurpose::test);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    Case c = random_case(random, 1, 2, 130, 32, 4, false, type);
    c.leaves[0].narrow(2, 40, 60).zero_();
    const auto all = blocked(c, type);
    EXPECT_TRUE(all[0].narrow(2, 40, 60).eq(0).all().item<bool>());
    for (const auto& x : all) EXPECT_TRUE(x.isfinite().all().item<bool>());
    c.leaves[1].zero_();  // no weight anywhere
    for (const auto& x : blocked(c, type)) EXPECT_TRUE(x.isfinite().all().item<bool>());
    EXPECT_TRUE(blocked(c, type)[0].eq(0).all().item<bool>());
  }
}

TEST_P(EachInstructionSet, LargeNormsStayFinite) {
  Philox random(7, RandomPurpose::test);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t degree : {2, 4, 8}) {
      Case c = random_case(random, 1, 2, 300, 64, degree, true, type);
      for (auto& leaf : c.leaves) leaf = leaf * 100;  // scores of degree 8 reach 2^150, beyond fp32
      const auto all = blocked(c, type), reference = dense(c);
      for (size_t i = 0; i < all.size(); ++i)
        EXPECT_TRUE(all[i].isfinite().all().item<bool>()) << kNames[i] << ", degree " << degree;
      EXPECT_LE(relative_error(all[0], reference[0]),
                type == at::kFloat ? test::tolerance::kSingle : test::tolerance::kBrain)
          << "degree " << degree;
      // A wrong power of two would show; the few rows that carry these gradients allow no closer
      // look.
      for (size_t i = 1; i < all.size(); ++i)
        EXPECT_LE(relative_error(all[i], reference[i]), test::tolerance::kBrainFewRows)
            << kNames[i] << ", degree " << degree;
    }
    Case raw = random_case(random, 1, 2, 300, 64, 4, false, type);
    for (int i = 0; i < 2; ++i)
      raw.leaves[static_cast<size_t>(i)] = raw.leaves[static_cast<size_t>(i)] * 100;
    for (const auto& x : blocked(raw, type)) EXPECT_TRUE(x.isfinite().all().item<bool>());
  }
}

}  // namespace
}  // namespace polysketch
