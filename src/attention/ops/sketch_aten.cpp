// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "attention/norm.hpp"
#include "attention/ops/sketch.hpp"

namespace polysketch::ops {
namespace {

using torch::autograd::variable_list;

constexpr int64_t kRows = 512;  // of a slice on the CPU: 8R columns of bf16 in half an L2 cache
constexpr int64_t kRowsOnDevice = 65536;

/// Four tensors of a level of a network: gain, bias [in], up [8R, in], down [R, 8R].
at::Tensor level(const at::Tensor& x, const at::Tensor* p) {
  const at::Tensor normal = at::layer_norm(x, {x.size(-1)}, p[0], p[1], HeadNorm::kEpsilon);
  return at::linear(at::gelu(at::linear(normal, p[2]), "tanh"), p[3]);
}

/// x: [n, D]. `p` is moved past the parameters of this network.
at::Tensor network(const at::Tensor& x, int64_t size, int64_t degree, const at::Tensor*& p) {
  const auto side = [&] {
    const at::Tensor in = degree > 2 ? network(x, size, degree / 2, p) : x;
    const at::Tensor out = level(level(in, p), p + 4);
    p += 8;
    return out;
  };
  const at::Tensor left = side();
  const at::Tensor right = side();
  const double root = std::sqrt(static_cast<double>(size));
  return at::tanh(left * right / root) * root;
}

int64_t slice_rows(const at::Tensor& x) { return x.is_cpu() ? kRows : kRowsOnDevice; }

variable_list in_type(const variable_list& parameters, at::ScalarType type) {
  variable_list cast;
  for (const at::Tensor& p : parameters) cast.push_back(p.to(type));
  return cast;
}

// Slices one after another: the products in them have all threads to themselves, and their bits
// depend on that.
at::Tensor forward(const SketchCall& call) {
  const at::NoGradGuard no_grad;
  const variable_list cast = in_type(call.parameters, call.x.scalar_type());
  const int64_t count = call.x.size(0), slice = slice_rows(call.x);
  const at::Tensor out = at::empty({count, call.size}, call.x.options());
  for (int64_t begin = 0; begin < count; begin += slice) {
    const int64_t rows = std::min(slice, count - begin);
    const at::Tensor* p = cast.data();
    out.narrow(0, begin, rows)
        .copy_(network(call.x.narrow(0, begin, rows), call.size, call.degree, p));
  }
  return out;
}

SketchGradients backward(const SketchCall& call, const at::Tensor& gradient) {
  const variable_list cast = in_type(call.parameters, call.x.scalar_type());
  const at::Tensor dx = at::empty_like(call.x);
  const int64_t count = call.x.size(0);
  const int64_t slice = std::min(slice_rows(call.x),
                                 std::max<int64_t>(1, (count + kSketchStrips - 1) / kSketchStrips));
  const int64_t strip = ((count + slice - 1) / slice + kSketchStrips - 1) / kSketchStrips * slice;
  std::vector<variable_list> sums(static_cast<size_t>((count + strip - 1) / strip));
  const auto run = [&](int64_t begin, int64_t end, variable_list& sum) {
    const at::AutoGradMode enable(true);
    variable_list leaves{call.x.narrow(0, begin, end - begin).detach().requires_grad_()};
    for (const at::Tensor& p : cast) leaves.push_back(p.detach().requires_grad_());
    const at::Tensor* p = leaves.data() + 1;
    const at::Tensor out = network(leaves[0], call.size, call.degree, p);
    const variable_list back =
        torch::autograd::grad({out}, leaves, {gradient.narrow(0, begin, end - begin)});
    const at::NoGradGuard no_grad;
    dx.narrow(0, begin, end - begin).copy_(back[0]);
    for (size_t i = 0; i < cast.size(); ++i) {
      const at::Tensor wide = back[i + 1].to(call.parameters[i].scalar_type());
      sum.size() <= i ? sum.push_back(wide) : static_cast<void>(sum[i].add_(wide));
    }
  };
  for (size_t s = 0; s < sums.size(); ++s) {
    const int64_t first = static_cast<int64_t>(s) * strip, last = std::min(count, first + strip);
    for (int64_t begin = first; begin < last; begin += slice)
      run(begin, std::min(last, begin + slice), sums[s]);
  }
  SketchGradients back{dx, {}};
  for (size_t i = 0; i < cast.size(); ++i) {
    at::Tensor sum = sums[0][i];
    for (size_t s = 1; s < sums.size(); ++s) sum = sum + sums[s][i];
    back.parameters.push_back(sum);
  }
  return back;
}

}  // namespace

const SketchImplementation sketch_aten{
    {"aten", any_device, true}, [](const SketchCall&) { return true; }, forward, backward};

}  // namespace polysketch::ops
