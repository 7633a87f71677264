// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "attention/ops/sketch.hpp"
#include "attention/sketch.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

using torch::autograd::variable_list;

/// The parameters of a network, in the order of ops::SketchCall.
void add_parameters(std::vector<AttentionParameter>& all, const std::string& prefix, int64_t width,
                    int64_t size, int64_t degree, const at::TensorOptions& options) {
  constexpr int64_t wide = ops::kSketchExpansion;
  for (const char* side : {"left", "right"}) {
    if (degree > 2)
      add_parameters(all, fmt::format("{}{}.input.", prefix, side), width, size, degree / 2,
                     options);
    for (const int64_t i : {0, 1}) {
      const int64_t in = i == 0 && degree == 2 ? width : size;
      const auto name = [&](const char* what) {
        return fmt::format("{}{}.{}.{}", prefix, side, i, what);
      };
      all.push_back({name("norm.gain"), at::ones({in}, options)});
      all.push_back({name("norm.bias"), at::zeros({in}, options)});
      all.push_back(
          {name("up"), at::randn({wide * size, in}, options) / std::sqrt(static_cast<double>(in))});
      all.push_back({name("down"), at::randn({size, wide * size}, options) /
                                       std::sqrt(static_cast<double>(wide * size))});
    }
  }
}

double network_flops(double width, double size, int64_t degree) {
  const double in = degree == 2 ? width : size, wide = ops::kSketchExpansion * size;
  return 2 * 2 * (in * wide + wide * size + size * wide + wide * size) +
         (degree > 2 ? 2 * network_flops(width, size, degree / 2) : 0);
}

struct SketchFunction : public torch::autograd::Function<SketchFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            int64_t size, int64_t degree, at::TensorList parameters) {
    variable_list kept{x};
    kept.insert(kept.end(), parameters.begin(), parameters.end());
    context->save_for_backward(std::move(kept));
    context->saved_data["size"] = size;
    context->saved_data["degree"] = degree;
    const at::Tensor out =
        ops::sketch_forward({x.reshape({-1, x.size(3)}), size, degree, parameters.vec()});
    return out.view({x.size(0), x.size(1), x.size(2), -1});
  }

  static variable_list backward(torch::autograd::AutogradContext* context,
                                variable_list gradients) {
    require(!at::GradMode::is_enabled(), "a learned sketch has no second derivative");
    const auto kept = context->get_saved_variables();
    const at::Tensor& x = kept[0];
    const at::Tensor rows = x.reshape({-1, x.size(3)}).detach();
    const ops::SketchGradients back = ops::sketch_backward(
        {rows, context->saved_data.at("size").toInt(), context->saved_data.at("degree").toInt(),
         variable_list(kept.begin() + 1, kept.end())},
        gradients[0].reshape({rows.size(0), -1}));
    variable_list result{back.x.view(x.sizes()), at::Tensor(), at::Tensor()};
    result.insert(result.end(), back.parameters.begin(), back.parameters.end());
    return result;
  }
};

class LearnedSketch : public Sketch {
 public:
  LearnedSketch(int64_t width, int64_t size, int64_t degree, const at::TensorOptions& options)
      : width_(width), size_(size), degree_(degree) {
    if (degree > 1) add_parameters(parameters_, "", width, size, degree, options);
    for (AttentionParameter& parameter : parameters_) parameter.value.requires_grad_();
  }

  at::Tensor operator()(const at::Tensor& x) const override {
    if (degree_ == 1) return x;
    variable_list values;
    for (const AttentionParameter& parameter : parameters_) values.push_back(parameter.value);
    return SketchFunction::apply(x, size_, degree_, at::TensorList(values));
  }

  int64_t size() const override { return degree_ == 1 ? width_ : size_; }
  double flops() const override {
    return degree_ == 1
               ? 0
               : network_flops(static_cast<double>(width_), static_cast<double>(size_), degree_);
  }
  std::vector<AttentionParameter> parameters() const override { return parameters_; }

 private:
  int64_t width_, size_, degree_;
  std::vector<AttentionParameter> parameters_;
};

}  // namespace

std::unique_ptr<Sketch> make_learned_sketch(int64_t width, int64_t size, int64_t degree,
                                            const at::TensorOptions& options) {
  return std::make_unique<LearnedSketch>(width, size, degree, options);
}

}  // namespace polysketch
