// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/kernel_test.hpp"

namespace polysketch::kernels::test {
namespace {

using RotaryTest = KernelTest;

template <class A>
struct Case {
  int64_t batch, length, heads, head_width, width, rows;
  std::vector<A> qkv, q, k, v;
  std::vector<Real<A>> cosine, sine;

  Case(Philox& random, int64_t batch_, int64_t length_, int64_t heads_, int64_t head_width_)
      : batch(batch_),
        length(length_),
        heads(heads_),
        head_width(head_width_),
        width(heads_ * head_width_),
        rows(batch_ * length_) {
    qkv = normals<A>(random, rows * 3 * width);
    q.resize(static_cast<size_t>(rows * width)), k = q, v = q;
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t i = 0; i < head_width / 2; ++i) {
        const double angle =
            static_cast<double>(t) *
            std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(head_width));
        cosine.push_back(static_cast<Real<A>>(std::cos(angle)));
        sine.push_back(static_cast<Real<A>>(std::sin(angle)));
      }
    }
  }
  RotaryForward<A> forward() {
    return {.qkv = qkv.data(),
            .q = q.data(),
            .k = k.data(),
            .v = v.data(),
            .cosine = cosine.data(),
            .sine = sine.data(),
            .length = length,
            .heads = heads,
            .head_width = head_width};
  }
  RotaryBackward<A> backward(std::vector<A>& dqkv) {
    return {.dq = q.data(),
            .dk = k.data(),
            .dv = v.data(),
            .dqkv = dqkv.data(),
            .cosine = cosine.data(),
            .sine = sine.data(),
            .length = length,
            .heads = heads,
            .head_width = head_width};
  }
  /// The formula of row_kernels.hpp, in fp64; part 0, 1, 2 are q, k, v. [B, H, T, D].
  std::vector<double> reference(int64_t part) const {
    std::vector<double> out(q.size());
    const int64_t half = head_width / 2;
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t t = 0; t < length; ++t) {
          const auto from =
              static_cast<size_t>((b * length + t) * 3 * width + part * width + h * head_width);
          const auto to = static_cast<size_t>(((b * heads + h) * length + t) * head_width);
          for (int64_t i = 0; i < half; ++i) {
            const auto u = static_cast<size_t>(i);
            const double even = widen(qkv[from + 2 * u]), odd = widen(qkv[from + 2 * u + 1]);
            const double c = part == 2 ? 1 : cosine[static_cast<size_t>(t * half + i)],
                         s = part == 2 ? 0 : sine[static_cast<size_t>(t * half + i)];
            out[to + (part == 2 ? 2 * u : u)] = even * c - odd * s;
            out[to + (part == 2 ? 2 * u + 1 : u + static_cast<size_t>(half))] = odd * c + even * s;
          }
        }
      }
    }
    return out;
  }
};

template <class A>
void check(Philox& random, int64_t batch, int64_t length, int64_t heads, int64_t head_width) {
  SCOPED_TRACE(testing::Message() << batch << ", " << length << ", " << heads << ", " << head_width
                                  << ", " << sizeof(A) << " bytes");
  Case<A> c(random, batch, length, heads, head_width);
  rotary_forward(c.forward(), 0, c.rows);
  expect_close(c.q, c.reference(0), 3, "q");
  expect_close(c.k, c.reference(1), 3, "k");
  expect_close(c.v, c.reference(2), 0, "v");
  // A rotation: its transpose undoes it.
  std::vector<A> back(c.qkv.size());
  rotary_backward(c.backward(back), 0, c.rows);
  const double units = std::is_same_v<A, bf16> ? 0x1p16 : 6;
  expect_close(back, widened(c.qkv), units, "back");
}

TEST_P(RotaryTest, RotatesAndRotatesBack) {
  for (const int64_t head_width : {2, 6, 16, 18, 32, 40, 64, 80, 128}) {
    check<float>(random, 2, 5, 3, head_width);
    check<bf16>(random, 2, 5, 3, head_width);
    check<double>(random, 1, 4, 2, head_width);
    if (HasFatalFailure()) return;
  }
  check<float>(random, 1, 1, 1, 64);
}

// <rotated q, g> = <q, g rotated back>, for any g: the backward pass is the transpose.
TEST_P(RotaryTest, BackwardIsTheTranspose) {
  Case<double> c(random, 1, 6, 2, 10);
  rotary_forward(c.forward(), 0, c.rows);
  const auto q = c.q, k = c.k, v = c.v;
  c.q = normals<double>(random, 120), c.k = normals<double>(random, 120),
  c.v = normals<double>(random, 120);
  std::vector<double> dqkv(c.qkv.size());
  rotary_backward(c.backward(dqkv), 0, c.rows);
  double left = 0, right = 0;
  for (size_t i = 0; i < q.size(); ++i) left += q[i] * c.q[i] + k[i] * c.k[i] + v[i] * c.v[i];
  for (size_t i = 0; i < dqkv.size(); ++i) right += dqkv[i] * c.qkv[i];
  EXPECT_NEAR(left, right, 1e-12);
}

POLYSKETCH_EVERY_INSTRUCTION_SET(RotaryTest);

}  // namespace
}  // namespace polysketch::kernels::test
