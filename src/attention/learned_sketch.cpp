// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "attention/head_rows.hpp"
#include "attention/norm.hpp"
#include "attention/sketch.hpp"
#include "kernels/cpu/sketch_rows.hpp"

namespace polysketch {
namespace {

using kernels::bf16;
using torch::autograd::variable_list;

constexpr int64_t kExpansion = 8;
constexpr int64_t kRows = 512;  // of a piece on the CPU: 8R columns of bf16 in half an L2 cache
constexpr int64_t kRowsOnDevice = 65536;
// shorter ones cost more in adding up gradients of parameters than they save
constexpr int64_t kShortestStrip = 512;
constexpr int64_t kStrips =
    32;  // over which gradients of parameters are added up in order, whatever the number of threads

/// Four tensors of a level of a network: gain, bias [in], up [8R, in], down [R, 8R].
at::Tensor level(const at::Tensor& x, const at::Tensor* p) {
  const at::Tensor normal = at::layer_norm(x, {x.size(-1)}, p[0], p[1], HeadNorm::kEpsilon);
  return at::linear(at::gelu(at::linear(normal, p[2]), "tanh"), p[3]);
}

/// The shape of the recursion; parameters are handed in, so that pieces can use their own copies.
class Node {
 public:
  Node(int64_t width, int64_t size, int64_t degree)
      : width_(degree == 2 ? width : size), size_(size) {
    if (degree == 2) return;
    first_ = std::make_unique<Node>(width, size, degree / 2);
    second_ = std::make_unique<Node>(width, size, degree / 2);
  }

  std::vector<AttentionParameter> make_parameters(const at::TensorOptions& options) const {
    std::vector<AttentionParameter> all;
    const auto add = [&](const std::string& side, const Node* half) {
      if (half) {
        for (AttentionParameter& inner : half->make_parameters(options))
          all.push_back({side + ".input." + inner.name, inner.value});
      }
      for (const int64_t i : {0, 1}) {
        const int64_t in = i == 0 ? width_ : size_;
        const auto name = [&](const char* what) { return fmt::format("{}.{}.{}", side, i, what); };
        all.push_back({name("norm.gain"), at::ones({in}, options)});
        all.push_back({name("norm.bias"), at::zeros({in}, options)});
        all.push_back({name("up"), at::randn({kExpansion * size_, in}, options) /
                                       std::sqrt(static_cast<double>(in))});
        all.push_back({name("down"), at::randn({size_, kExpansion * size_}, options) /
                                         std::sqrt(static_cast<double>(kExpansion * size_))});
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

  /// Whether both networks read x itself, not sketches of it.
  bool reads_inputs() const { return first_ == nullptr; }
  int64_t width() const { return width_; }
  int64_t size() const { return size_; }

  double flops() const {
    const double r = static_cast<double>(size_), in = static_cast<double>(width_),
                 wide = kExpansion * r;
    return 2 * 2 * (in * wide + wide * r + r * wide + wide * r) +
           (first_ ? first_->flops() + second_->flops() : 0);
  }

 private:
  int64_t width_, size_;
  std::unique_ptr<Node> first_, second_;
};

int64_t piece_rows(const at::Tensor& x) { return x.is_cpu() ? kRows : kRowsOnDevice; }

bool has_row_kernels(const at::Tensor& x, const Node& network) {
  if (!x.is_cpu() || !network.reads_inputs()) return false;
  if (x.scalar_type() == at::kFloat)
    return kernels::sketch_kernels<float>(network.width(), network.size()) != nullptr;
  return x.scalar_type() == at::kBFloat16 &&
         kernels::sketch_kernels<bf16>(network.width(), network.size()) != nullptr;
}

/// The parameters as the kernels pack them; one level after another as Node::make_parameters lists
/// them.
template <class T>
at::Tensor packed(const Node& network, const variable_list& parameters) {
  const auto& kernel = *kernels::sketch_kernels<T>(network.width(), network.size());
  variable_list wide;
  for (const at::Tensor& parameter : parameters)
    wide.push_back(parameter.to(at::kFloat).contiguous());
  kernels::SketchNetwork pointers;
  for (size_t side = 0; side < 2; ++side) {
    for (size_t depth = 0; depth < 2; ++depth) {
      const at::Tensor* first = &wide[side * 8 + depth * 4];
      pointers.gain[side][depth] = first[0].const_data_ptr<float>();
      pointers.bias[side][depth] = first[1].const_data_ptr<float>();
      pointers.up[side][depth] = first[2].const_data_ptr<float>();
      pointers.down[side][depth] = first[3].const_data_ptr<float>();
    }
  }
  const at::Tensor place = at::empty(
      {static_cast<int64_t>(kernel.packed_bytes(network.width(), network.size()))}, at::kByte);
  kernel.pack(pointers, network.width(), network.size(), place.mutable_data_ptr());
  return place;
}

template <class T>
kernels::HeadRows<const T> rows_from(const at::Tensor& x, int64_t first) {
  return {static_cast<const T*>(x.const_data_ptr()) + first * x.stride(0), x.stride(0)};
}
template <class T>
kernels::HeadRows<T> mutable_rows_from(const at::Tensor& x, int64_t first) {
  return {static_cast<T*>(x.mutable_data_ptr()) + first * x.stride(0), x.stride(0)};
}

/// x [n, D] -> [n, R].
template <class T>
at::Tensor kernel_forward(const Node& network, const at::Tensor& x,
                          const variable_list& parameters) {
  const int64_t width = network.width(), size = network.size(), count = x.size(0),
                pieces = (count + kRows - 1) / kRows;
  const auto& kernel = *kernels::sketch_kernels<T>(width, size);
  const at::Tensor place = packed<T>(network, parameters),
                   out = at::empty({count, size}, x.options());
  for_each_item(pieces, kernel.forward_scratch(width, size), [&](int64_t piece, void* scratch) {
    const int64_t begin = piece * kRows;
    kernel.forward(place.const_data_ptr(), width, size, rows_from<T>(x, begin),
                   std::min(kRows, count - begin), mutable_rows_from<T>(out, begin), scratch);
  });
  return out;
}

/// Gradients of x and, in order, of the parameters.
template <class T>
variable_list kernel_backward(const Node& network, const at::Tensor& x, const at::Tensor& gradient,
                              const variable_list& parameters) {
  const int64_t width = network.width(), size = network.size(), count = x.size(0);
  const auto& kernel = *kernels::sketch_kernels<T>(width, size);
  const at::Tensor place = packed<T>(network, parameters),
                   dx = at::empty({count, width}, x.options());
  int64_t numbers = 0;
  for (const at::Tensor& parameter : parameters) numbers += parameter.numel();
  const int64_t strip = std::max(kShortestStrip, (count + kStrips - 1) / kStrips),
                strips = (count + strip - 1) / strip;
  const at::Tensor sums = at::zeros({strips, numbers}, at::kFloat);
  for_each_item(strips, kernel.backward_scratch(width, size), [&](int64_t i, void* scratch) {
    const int64_t begin = i * strip;
    kernel.backward(place.const_data_ptr(), width, size, rows_from<T>(x, begin),
                    std::min(strip, count - begin), rows_from<T>(gradient, begin),
                    mutable_rows_from<T>(dx, begin), sums.mutable_data_ptr<float>() + i * numbers,
                    scratch);
  });
  variable_list result{dx};
  at::Tensor sum = sums[0].clone();
  for (int64_t i = 1; i < strips; ++i) sum.add_(sums[i]);
  int64_t begin = 0;
  for (const at::Tensor& parameter : parameters) {
    result.push_back(sum.narrow(0, begin, parameter.numel()).view(parameter.sizes()));
    begin += parameter.numel();
  }
  return result;
}

variable_list in_type(const variable_list& parameters, at::ScalarType type) {
  variable_list cast;
  for (const at::Tensor& p : parameters) cast.push_back(p.to(type));
  return cast;
}

struct SketchFunction : public torch::autograd::Function<SketchFunction> {
  // `node` outlives the graph: the layer that owns it does.
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            int64_t node, at::TensorList parameters) {
    const auto& network = *reinterpret_cast<const Node*>(node);
    variable_list kept{x};
    kept.insert(kept.end(), parameters.begin(), parameters.end());
    context->saved_data["node"] = node;
    const at::Tensor rows = x.reshape({-1, x.size(3)});
    if (has_row_kernels(x, network)) {
      context->save_for_backward(std::move(kept));
      const at::Tensor out = x.scalar_type() == at::kFloat
                                 ? kernel_forward<float>(network, rows, parameters.vec())
                                 : kernel_forward<bf16>(network, rows, parameters.vec());
      return out.view({x.size(0), x.size(1), x.size(2), -1});
    }
    const variable_list cast = in_type(parameters.vec(), x.scalar_type());
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
    // One after another: the products in them have all threads to themselves, and their bits depend
    // on that.
    for (int64_t begin = piece; begin < count; begin += piece) {
      const int64_t end = std::min(count, begin + piece);
      out.narrow(0, begin, end - begin).copy_(run(begin, end));
    }
    context->save_for_backward(std::move(kept));
    return out.view({x.size(0), x.size(1), x.size(2), -1});
  }

  static variable_list backward(torch::autograd::AutogradContext* context,
                                variable_list gradients) {
    const auto kept = context->get_saved_variables();
    const auto& network = *reinterpret_cast<const Node*>(context->saved_data.at("node").toInt());
    const at::Tensor& x = kept[0];
    const variable_list parameters(kept.begin() + 1, kept.end());
    const at::Tensor rows = x.reshape({-1, x.size(3)}).detach(),
                     gradient = gradients[0].reshape({rows.size(0), -1});
    if (has_row_kernels(x, network)) {
      variable_list back = x.scalar_type() == at::kFloat
                               ? kernel_backward<float>(network, rows, gradient, parameters)
                               : kernel_backward<bf16>(network, rows, gradient, parameters);
      back[0] = back[0].view(x.sizes());
      back.insert(back.begin() + 1, at::Tensor());  // the node
      return back;
    }
    const variable_list cast = in_type(parameters, x.scalar_type());
    const at::Tensor dx = at::empty_like(rows);
    const int64_t count = rows.size(0);
    const int64_t piece =
        std::min(piece_rows(x), std::max<int64_t>(1, (count + kStrips - 1) / kStrips));
    const int64_t strip = ((count + piece - 1) / piece + kStrips - 1) / kStrips * piece;
    std::vector<variable_list> sums(static_cast<size_t>((count + strip - 1) / strip));
    const auto run = [&](int64_t begin, int64_t end, variable_list& sum) {
      const at::AutoGradMode enable(true);
      variable_list leaves{rows.narrow(0, begin, end - begin).detach().requires_grad_()};
      for (const at::Tensor& p : cast) leaves.push_back(p.detach().requires_grad_());
      const at::Tensor* p = leaves.data() + 1;
      const at::Tensor out = network(leaves[0], p);
      const variable_list back =
          torch::autograd::grad({out}, leaves, {gradient.narrow(0, begin, end - begin)});
      const at::NoGradGuard no_grad;
      dx.narrow(0, begin, end - begin).copy_(back[0]);
      for (size_t i = 0; i < parameters.size(); ++i) {
        const at::Tensor wide = back[i + 1].to(parameters[i].scalar_type());
        sum.size() <= i ? sum.push_back(wide) : static_cast<void>(sum[i].add_(wide));
      }
    };
    const auto strips = static_cast<int64_t>(sums.size());
    for (int64_t s = 0; s < strips; ++s) {
      for (int64_t begin = s * strip; begin < std::min(count, (s + 1) * strip); begin += piece) {
        run(begin, std::min({count, (s + 1) * strip, begin + piece}), sums[static_cast<size_t>(s)]);
      }
    }
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
  LearnedSketch(int64_t width, int64_t size, int64_t degree, const at::TensorOptions& options)
      : size_(degree == 1 ? width : size) {
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

std::unique_ptr<Sketch> make_learned_sketch(int64_t width, int64_t size, int64_t degree,
                                            const at::TensorOptions& options) {
  return std::make_unique<LearnedSketch>(width, size, degree, options);
}

}  // namespace polysketch
