// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "attention/sketch.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

/// Standard normal numbers, the same on every machine.
at::Tensor draw_normal(int64_t rows, int64_t columns, Philox& random,
                       const at::TensorOptions& options) {
  at::Tensor values = at::empty({rows, columns}, at::kDouble);
  auto* value = values.mutable_data_ptr<double>();
  for (int64_t i = 0; i < rows * columns; ++i) value[i] = random.normal();
  return values.to(options.device(), at::typeMetaToScalarType(options.dtype()));
}

class RandomSketch : public Sketch {
 public:
  RandomSketch(int64_t width, int64_t size, int64_t degree, SketchScale scale, Philox& random,
               const at::TensorOptions& options)
      : width_(width), size_(degree == 1 ? width : size), degree_(degree) {
    if (degree == 1) return;
    first_ = std::make_unique<RandomSketch>(width, size, degree / 2, scale, random, options);
    second_ = std::make_unique<RandomSketch>(width, size, degree / 2, scale, random, options);
    const double r = static_cast<double>(size);
    const double each = scale == SketchScale::paper ? std::pow(r, -0.25) : std::pow(r, -0.5);
    left_ = draw_normal(first_->size(), size, random, options) * each;
    right_ = draw_normal(second_->size(), size, random, options) * each;
  }

  at::Tensor operator()(const at::Tensor& x) const override {
    if (degree_ == 1) return x;
    const auto type = x.scalar_type();
    return at::matmul((*first_)(x), left_.to(type)) * at::matmul((*second_)(x), right_.to(type));
  }

  int64_t size() const override { return size_; }

  double flops() const override {
    if (degree_ == 1) return 0;
    return first_->flops() + second_->flops() + 4.0 * static_cast<double>(first_->size() * size_) +
           static_cast<double>(size_);
  }

  std::vector<AttentionParameter> constants() const override {
    if (degree_ == 1) return {};
    std::vector<AttentionParameter> all;
    const auto add = [&](const char* side, const RandomSketch& half, const at::Tensor& matrix) {
      for (const AttentionParameter& inner : half.constants())
        all.push_back({fmt::format("{}.{}", side, inner.name), inner.value});
      all.push_back({side, matrix});
    };
    add("left", *first_, left_);
    add("right", *second_, right_);
    return all;
  }

 private:
  int64_t width_, size_, degree_;
  std::unique_ptr<RandomSketch> first_, second_;
  at::Tensor left_, right_;  ///< [width of the half, R], with the scale in it
};

}  // namespace

std::unique_ptr<Sketch> make_random_sketch(int64_t width, int64_t size, int64_t degree,
                                           SketchScale scale, const AttentionDraw& draw,
                                           const at::TensorOptions& options) {
  Philox random(draw.seed, RandomPurpose::sketch, static_cast<uint64_t>(draw.layer));
  return std::make_unique<RandomSketch>(width, size, degree, scale, random, options);
}

}  // namespace polysketch
