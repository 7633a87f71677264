// SPDX-License-Identifier: Apache-2.0
#include "attention/ops/polynomial.hpp"

namespace polysketch::ops {
namespace {

const Choice<PolynomialImplementation> choice{"polynomial", {&polynomial_cpu, &polynomial_aten}};

}  // namespace

PolynomialResult polynomial_forward(const PolynomialCall& call) {
  return choice(call).forward(call);
}

PolynomialGradients polynomial_backward(const PolynomialCall& call, const PolynomialResult& result,
                                        const at::Tensor& output_gradient) {
  return choice(call).backward(call, result, output_gradient);
}

}  // namespace polysketch::ops
