// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "attention/sketch.hpp"

namespace polysketch {
namespace {

using torch::autograd::variable_list;

constexpr double kNormEpsilon = 1e-5;
constexpr int64_t kExpansion = 8;
constexpr int64_t kRows = 512;  // of a piece on the CPU: 8R columns of bf16 in half an L2 cache
constexpr int64_t kRowsOnDevice = 65536;
constexpr int64_t kStrips = 32;  // over which gradients of parameters are added up in order, whatever the number of threads

/// Four tensors of a level of a network: gain, bias [in], up [8R, in], down [R, 8R].
at::Tensor level(const at::Tensor& x, const at::Tensor* p) {
  const at::Tensor normal = at::layer_norm(x, {x.size(-1)}, p[0], p[1], kNormEpsilon);
  return at::linear(at::gelu(at::linear(normal, p[2]), "tanh"), p[3]);
}

/// The shape of the recursion; parameters are handed in, so that pieces can use their own copies.
class Node {
 public:
  Node(int64_t width, int64_t size, int64_t degree) : width_(degree == 2 ? width : size), size_(size) {
    if (degree == 2) return;
    first_ = std::make_unique<Node>(width, size, degree / 2);
    second_ = std::make_unique<Node>(width, size, degree / 2);
  }

  std::vector<AttentionParameter> make_parameters(const at::TensorOptions& options) const {
    std::vector<AttentionParameter> all;
    const auto add = [&](const std::string& side, const Node* half) {
      if (half) {
        for (AttentionParameter& inner : half->make_parameters(options)) all.push_back({side + ".input." + inner.name, inner.value});
      }
      for (const int64_t i : {0, 1}) {
        const int64_t in = i == 0 ? width_ : size_;
        const auto name = [&](const char* what) { return fmt::format("{}.{}.{}", side, i, what); };
        all.push_back({name("norm.gain"), at::ones({in}, options)});
        all.push_back({name("norm.bias"), at::zeros({in}, options)});
        all.push_back({name("up"), at::randn({kExpansion * size_, in}, options) / std::sqrt(static_cast<double>(in))});
        all.push_back({name("down"), at::randn({size_, kExpansion * size_}, options) / std::sqrt(static_cast<double>(kExpansion * size_))});
      }
    };
    add("left", first_.get());
    add("right", second_.get());
    return all;
  }

  /// x: [n, D]. `p` is moved past the parameters of this node.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor*& p) const {
    const auto side = [&](const Node* half) {
      const at::Tensor in = half ? (*half)(x, p) : x;
      const at::Tensor out = level(level(in, p), p + 4);
      p += 8;
      return out;
    };
    const at::Tensor left = side(first_.get());
    const at::Tensor right = side(second_.get());
    const double root = std::sqrt(static_cast<double>(size_));
    return at::tanh(left * right / root) * root;
  }

  double flops() const {
    const double r = static_cast<double>(size_), in = static_cast<double>(width_), wide = kExpansion * r;
    return 2 * 2 * (in * wide + wide * r + r * wide + wide * r) + (first_ ? first_->flops() + second_->flops() : 0);
  }

 private:
  int64_t width_, size_;
  std::unique_ptr<Node> first_, second_;
};

int64_t piece_rows(const at::Tensor& x) { return x.is_cpu() ? kRows : kRowsOnDevice; }

variable_list in_type(const variable_list& parameters, at::ScalarType type) {
  variable_list cast;
  for (const at::Tensor& p : parameters) cast.push_back(p.to(type));
  return cast;
}

struct SketchFunction : public torch::autograd::Function<SketchFunction> {
  // `node` outlives the graph: the layer that owns it does.
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, int64_t node, at::TensorList parameters) {
    const auto& network = *reinterpret_cast<const Node*>(node);
    variable_list kept{x};
    kept.insert(kept.end(), parameters.begin(), parameters.end());
    const variable_list cast = in_type(parameters.vec(), x.scalar_type());
    const at::Tensor rows = x.reshape({-1, x.size(3)});
    const int64_t count = rows.size(0), piece = piece_rows(x);
    at::Tensor out;
    const auto run = [&](int64_t begin, int64_t end) {
      const at::NoGradGuard no_grad;  // does not reach other threads by itself
      const at::Tensor* p = cast.data();
      return network(rows.narrow(0, begin, end - begin), p);
    };
    // The first piece tells the width.
    const at::Tensor head = run(0, std::min(piece, count));
    out = at::empty({count, head.size(1)}, x.options());
    out.narrow(0, 0, head.size(0)).copy_(head);
    const auto work = [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t begin = i * piece, end = std::min(count, begin + piece);
        out.narrow(0, begin, end - begin).copy_(run(begin, end));
      }
    };
    const int64_t pieces = (count + piece - 1) / piece;
    x.is_cpu() ? at::parallel_for(1, std::max<int64_t>(pieces, 1), 1, work) : work(1, pieces);
    context->save_for_backward(std::move(kept));
    context->saved_data["node"] = node;
    return out.view({x.size(0), x.size(1), x.size(2), -1});
  }

  static variable_list backward(torch::autograd::AutogradContext* context, variable_list gradients) {
    const auto kept = context->get_saved_variables();
    const auto& network = *reinterpret_cast<const Node*>(context->saved_data.at("node").toInt());
    const at::Tensor& x = kept[0];
    const variable_list parameters(kept.begin() + 1, kept.end());
    const variable_list cast = in_type(parameters, x.scalar_type());
    const at::Tensor rows = x.reshape({-1, x.size(3)}).detach(), gradient = gradients[0].reshape({rows.size(0), -1});
    const at::Tensor dx = at::empty_like(rows);
    const int64_t count = rows.size(0);
    const int64_t piece = std::min(piece_rows(x), std::max<int64_t>(1, (count + kStrips - 1) / kStrips));
    const int64_t strip = ((count + piece - 1) / piece + kStrips - 1) / kStrips * piece;
    std::vector<variable_list> sums(static_cast<size_t>((count + strip - 1) / strip));
    const auto run = [&](int64_t begin, int64_t end, variable_list& sum) {
      const at::AutoGradMode enable(true);
      variable_list leaves{rows.narrow(0, begin, end - begin).detach().requires_grad_()};
      for (const at::Tensor& p : cast) leaves.push_back(p.detach().requires_grad_());
      const at::Tensor* p = leaves.data() + 1;
      const at::Tensor out = network(leaves[0], p);
      const variable_list back = torch::autograd::grad({out}, leaves, {gradient.narrow(0, begin, end - begin)});
      const at::NoGradGuard no_grad;
      dx.narrow(0, begin, end - begin).copy_(back[0]);
      for (size_t i = 0; i < parameters.size(); ++i) {
        const at::Tensor wide = back[i + 1].to(parameters[i].scalar_type());
        sum.size() <= i ? sum.push_back(wide) : static_cast<void>(sum[i].add_(wide));
      }
    };
    const auto work = [&](int64_t first, int64_t last) {
      for (int64_t s = first; s < last; ++s) {
        for (int64_t begin = s * strip; begin < std::min(count, (s + 1) * strip); begin += piece) {
          run(begin, std::min({count, (s + 1) * strip, begin + piece}), sums[static_cast<size_t>(s)]);
        }
      }
    };
    const auto strips = static_cast<int64_t>(sums.size());
    x.is_cpu() ? at::parallel_for(0, strips, 1, work) : work(0, strips);
    variable_list result{dx.view(x.sizes()), at::Tensor()};
    for (size_t i = 0; i < parameters.size(); ++i) {
      at::Tensor sum = sums[0][i];
      for (size_t s = 1; s < sums.size(); ++s) sum = sum + sums[s][i];
      result.push_back(sum);
    }
    return result;
  }
};

class LearnedSketch : public Sketch {
 public:
  LearnedSketch(int64_t width, int64_t size, int64_t degree, const at::TensorOptions& options) : size_(degree == 1 ? width : size) {
    if (degree == 1) return;
    node_ = std::make_unique<Node>(width, size, degree);
    for (AttentionParameter& parameter : node_->make_parameters(options)) {
      parameter.value.requires_grad_();
      parameters_.push_back(std::move(parameter));
    }
  }

  at::Tensor operator()(const at::Tensor& x) const override {
    if (!node_) return x;
    variable_list values;
    for (const AttentionParameter& parameter : parameters_) values.push_back(parameter.value);
    return SketchFunction::apply(x, reinterpret_cast<int64_t>(node_.get()), at::TensorList(values));
  }

  int64_t size() const override { return size_; }
  double flops() const override { return node_ ? node_->flops() : 0; }
  std::vector<AttentionParameter> parameters() const override { return parameters_; }

 private:
  int64_t size_;
  std::unique_ptr<Node> node_;
  std::vector<AttentionParameter> parameters_;
};

}  // namespace

std::unique_ptr<Sketch> make_learned_sketch(int64_t width, int64_t size, int64_t degree, const at::TensorOptions& options) {
  return std::make_unique<LearnedSketch>(width, size, degree, options);
}

}  // namespace polysketch
