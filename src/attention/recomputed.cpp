// SPDX-License-Identifier: Apache-2.0
#include "attention/recomputed.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>

#include "support/error.hpp"

namespace polysketch {
namespace {

using torch::autograd::variable_list;

constexpr int64_t kHeads = 2;

struct Work : public torch::CustomClassHolder {
  explicit Work(HeadsFunction given) : run(std::move(given)) {}
  HeadsFunction run;
};

struct RecomputedFunction : public torch::autograd::Function<RecomputedFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const HeadsFunction& work,
                            const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            at::TensorList parameters) {
    context->saved_data["work"] = c10::IValue::make_capsule(c10::make_intrusive<Work>(work));
    variable_list kept{q, k, v};
    kept.insert(kept.end(), parameters.begin(), parameters.end());
    context->save_for_backward(std::move(kept));
    at::Tensor output =
        at::empty({v.size(0), v.size(2), v.size(1), v.size(3)}, v.options()).transpose(1, 2);
    for (int64_t head = 0; head < v.size(1); head += kHeads) {
      const auto some = [&](const at::Tensor& x) {
        return x.narrow(1, head, std::min(kHeads, v.size(1) - head));
      };
      some(output).copy_(work(some(q), some(k), some(v), parameters.vec()));
    }
    return output;
  }

  static variable_list backward(torch::autograd::AutogradContext* context,
                                variable_list gradients) {
    require(!at::GradMode::is_enabled(), "recomputed heads have no second derivative");
    const auto work =
        c10::static_intrusive_pointer_cast<Work>(context->saved_data.at("work").toCapsule());
    const auto kept = context->get_saved_variables();
    variable_list sums;
    for (const at::Tensor& x : kept) sums.push_back(at::zeros(x.sizes(), x.options()));
    const int64_t heads = kept[0].size(1);
    for (int64_t head = 0; head < heads; head += kHeads) {
      const auto some = [&](const at::Tensor& x) {
        return x.narrow(1, head, std::min(kHeads, heads - head));
      };
      variable_list leaves;
      for (size_t i = 0; i < kept.size(); ++i)
        leaves.push_back((i < 3 ? some(kept[i]) : kept[i]).detach().requires_grad_());
      at::Tensor output;
      {
        const at::AutoGradMode enable(true);
        output = work->run(leaves[0], leaves[1], leaves[2],
                           variable_list(leaves.begin() + 3, leaves.end()));
      }
      const variable_list back = torch::autograd::grad({output}, leaves, {some(gradients[0])},
                                                       std::nullopt, false, /*allow_unused=*/true);
      for (size_t i = 0; i < kept.size(); ++i) {
        if (back[i].defined()) (i < 3 ? some(sums[i]) : sums[i]).add_(back[i]);
      }
    }
    variable_list result{at::Tensor()};  // the function itself
    result.insert(result.end(), sums.begin(), sums.end());
    return result;
  }
};

}  // namespace

at::Tensor recomputed_heads(const HeadsFunction& work, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const std::vector<at::Tensor>& parameters) {
  return RecomputedFunction::apply(work, q, k, v, at::TensorList(parameters));
}

}  // namespace polysketch
