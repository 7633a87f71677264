// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/polynomial_attention.hpp"

namespace polysketch::kernels {

// Each is null on other architectures. Calling a table's functions needs the instructions in its name.
const PolynomialKernels<float>* avx512_polynomial_float();
const PolynomialKernels<bf16>* avx512_polynomial_bf16();      // bf16 rows, fp32 products
const PolynomialKernels<bf16>* avx512bf16_polynomial_bf16();  // bf16 products

}  // namespace polysketch::kernels
