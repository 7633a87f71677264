// SPDX-License-Identifier: Apache-2.0
#include "attention/performer_features.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "support/error.hpp"

namespace polysketch {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kElements = 128 * 1024;  // of a piece on the CPU: half an L2 cache in fp32
constexpr int64_t kElementsOnDevice = int64_t{1} << 26;

at::Tensor flat(const at::Tensor& x) { return x.reshape({-1, x.size(3)}); }

/// work(begin, count) over all rows, pieces over threads on the CPU.
void for_each_piece(const at::Tensor& rows, int64_t features,
                    const std::function<void(int64_t, int64_t)>& work) {
  const int64_t count = rows.size(0),
                piece = std::max<int64_t>(
                    1, (rows.is_cpu() ? kElements : kElementsOnDevice) / features);
  const auto run = [&](int64_t first, int64_t last) {
    const at::NoGradGuard no_grad;  // does not reach other threads by itself
    for (int64_t i = first; i < last; ++i) work(i * piece, std::min(piece, count - i * piece));
  };
  const int64_t pieces = (count + piece - 1) / piece;
  rows.is_cpu() ? at::parallel_for(0, pieces, 1, run) : run(0, pieces);
}

/// The projection with 1/D^¼ in it, [F, D].
at::Tensor scaled(const at::Tensor& projection) {
  return projection * std::pow(static_cast<double>(projection.size(1)), -0.25);
}

struct LargestFunction : public torch::autograd::Function<LargestFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& projection) {
    const at::Tensor rows = flat(x), matrix = scaled(projection);
    const at::Tensor largest = at::empty({rows.size(0)}, matrix.options()),
                     where = at::empty({rows.size(0)}, matrix.options().dtype(at::kLong));
    for_each_piece(rows, matrix.size(0), [&](int64_t begin, int64_t n) {
      at::Tensor into = largest.narrow(0, begin, n), at_feature = where.narrow(0, begin, n);
      at::max_out(into, at_feature,
                  at::linear(rows.narrow(0, begin, n).to(matrix.scalar_type()), matrix), 1);
    });
    context->save_for_backward({matrix, where});
    context->saved_data["type"] = x.scalar_type();
    return largest.view({x.size(0), x.size(1), x.size(2)});
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    require(!at::GradMode::is_enabled(), "Performer's features have no second derivative");
    const auto kept = context->get_saved_variables();
    const at::Tensor& gradient = gradients[0];
    const at::Tensor dx = kept[0].index_select(0, kept[1]).mul_(gradient.reshape({-1, 1}));
    return {dx.view({gradient.size(0), gradient.size(1), gradient.size(2), -1})
                .to(context->saved_data.at("type").toScalarType()),
            at::Tensor()};
  }
};

struct FeaturesFunction : public torch::autograd::Function<FeaturesFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& projection, const at::Tensor& largest,
                            double epsilon) {
    const at::Tensor rows = flat(x), matrix = scaled(projection), most = largest.reshape({-1, 1});
    const double features = static_cast<double>(matrix.size(0)),
                 root = std::sqrt(static_cast<double>(x.size(3)));
    const at::Tensor phi = at::empty({rows.size(0), matrix.size(0)}, x.options());
    for_each_piece(rows, matrix.size(0), [&](int64_t begin, int64_t n) {
      const at::Tensor wide = rows.narrow(0, begin, n).to(matrix.scalar_type());
      const at::Tensor off = most.narrow(0, begin, n) + wide.square().sum(1, true).div_(2 * root);
      phi.narrow(0, begin, n)
          .copy_(at::linear(wide, matrix)
                     .sub_(off)
                     .exp_()
                     .add_(epsilon)
                     .mul_(1 / std::sqrt(features)));
    });
    context->save_for_backward({x, matrix, phi});
    context->saved_data["floor"] = epsilon / std::sqrt(features);
    return phi.view({x.size(0), x.size(1), x.size(2), -1});
  }

  // phi − floor is its own derivative with respect to the exponent.
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    require(!at::GradMode::is_enabled(), "Performer's features have no second derivative");
    const auto kept = context->get_saved_variables();
    const at::Tensor &x = kept[0], &matrix = kept[1], &phi = kept[2];
    const double floor = context->saved_data.at("floor").toDouble(),
                 root = std::sqrt(static_cast<double>(x.size(3)));
    const at::Tensor rows = flat(x), gradient = gradients[0].reshape(phi.sizes());
    const at::Tensor dx = at::empty(rows.sizes(), rows.options()),
                     dlargest = at::empty({rows.size(0), 1}, matrix.options());
    for_each_piece(rows, matrix.size(0), [&](int64_t begin, int64_t n) {
      const auto part = [&](const at::Tensor& t) {
        return t.narrow(0, begin, n).to(matrix.scalar_type());
      };
      const at::Tensor ds = part(phi).sub(floor).mul_(part(gradient)), sum = ds.sum(1, true);
      dlargest.narrow(0, begin, n).copy_(sum.neg());
      dx.narrow(0, begin, n).copy_(at::mm(ds, matrix).sub_(part(rows) * sum, 1 / root));
    });
    return {dx.view(x.sizes()), at::Tensor(), dlargest.view({x.size(0), x.size(1), x.size(2)}),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor largest_exponents(const at::Tensor& x, const at::Tensor& projection) {
  return LargestFunction::apply(x, projection);
}

at::Tensor exponential_features(const at::Tensor& x, const at::Tensor& projection,
                                const at::Tensor& largest, double epsilon) {
  return FeaturesFunction::apply(x, projection, largest, epsilon);
}

}  // namespace polysketch
