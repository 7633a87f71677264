// SPDX-License-Identifier: Apache-2.0
#include "model/matmul.hpp"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <cpuid.h>

#include <cstring>

#include "model/ops.hpp"

namespace polysketch {
namespace {

bool made_by_intel() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0) return false;
  return b == signature_INTEL_ebx && c == signature_INTEL_ecx && d == signature_INTEL_edx;
}

// LibTorch's entry to oneDNN's matrix product for dense fp32 tensors: x · Wᵀ.
using OneDnnLinear = at::Tensor(const at::Tensor&, const at::Tensor&,
                                const std::optional<at::Tensor>&, c10::string_view,
                                c10::List<std::optional<at::Scalar>>,
                                std::optional<c10::string_view>);

const c10::TypedOperatorHandle<OneDnnLinear>* one_dnn_linear() {
  static const std::optional<c10::TypedOperatorHandle<OneDnnLinear>> found =
      []() -> std::optional<c10::TypedOperatorHandle<OneDnnLinear>> {
    if (made_by_intel() || !at::globalContext().hasMKLDNN()) return std::nullopt;
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!schema) return std::nullopt;
    return schema->typed<OneDnnLinear>();
  }();
  return found ? &*found : nullptr;
}

bool use_one_dnn(const at::Tensor& x) {
  // Tiny products are over before oneDNN has looked up its primitive.
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.size(0) >= 256 && x.size(1) >= 256 &&
         one_dnn_linear() != nullptr;
}

at::Tensor call_one_dnn(const at::Tensor& x, const at::Tensor& weight) {
  return one_dnn_linear()->call(x, weight, std::nullopt, "none",
                                c10::List<std::optional<at::Scalar>>(), "");
}

}  // namespace

at::Tensor dense(const at::Tensor& x, const at::Tensor& weight) {
  return use_one_dnn(x) ? call_one_dnn(x, weight) : at::mm(x, weight.t());
}

at::Tensor dense_backward(const at::Tensor& dy, const at::Tensor& weight) {
  return use_one_dnn(dy) ? call_one_dnn(dy, weight.t()) : at::mm(dy, weight);
}

void add_dense_gradient(at::Tensor gradient, const at::Tensor& dy, const at::Tensor& x) {
  if (gradient.scalar_type() == x.scalar_type()) {
    at::addmm_out(gradient, gradient, dy.t(), x);
  } else {
    ops::accumulate(gradient, at::mm(dy.t(), x));
  }
}

}  // namespace polysketch
