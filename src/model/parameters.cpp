// SPDX-License-Identifier: Apache-2.0
#include "model/parameters.hpp"

#include <ATen/Parallel.h>

#include <cmath>
#include <numbers>

#include "support/error.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

constexpr int64_t kAlignment = 64;  // elements: a cache line of bf16 twice over, so that no two parameters share one

// The quantile function of the standard normal: Acklam's rational approximation, relative error below 1.2e-9.
double normal_quantile(double p) {
  constexpr double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                          1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
  constexpr double b[] = {-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02, 6.680131188771972e+01,
                          -1.328068155288572e+01};
  constexpr double c[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                          -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
  constexpr double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00, 3.754408661907416e+00};
  constexpr double low = 0.02425;
  double x = 0;
  if (p < low || p > 1 - low) {
    const double q = std::sqrt(-2 * std::log(p < low ? p : 1 - p));
    x = (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) / ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
    if (p > 1 - low) x = -x;
  } else {
    const double q = p - 0.5, r = q * q;
    x = (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
        (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
  }
  return x;
}

// Philox block i of parameter `index` gives elements 4i … 4i+3, so the values do not depend on how the range is divided among threads.
template <typename T>
void fill_normal(T* data, int64_t count, uint64_t seed, uint64_t index, double deviation, bool truncated) {
  // Truncation at two deviations: the uniform draw is mapped into [Phi(-2), Phi(2)]; dividing by the deviation of the truncated normal
  // restores the variance.
  const double tail = truncated ? 0.5 * std::erfc(2 / std::numbers::sqrt2) : 0;
  const double scale = deviation / (truncated ? 0.87962566103423978 : 1);
  at::parallel_for(0, (count + 3) / 4, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const auto bits = philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(static_cast<uint64_t>(block) >> 32),
                                    static_cast<uint32_t>(index), static_cast<uint32_t>(RandomPurpose::parameters)},
                                   {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
      for (int64_t lane = 0; lane < 4 && 4 * block + lane < count; ++lane) {
        const double uniform = (bits[static_cast<size_t>(lane)] + 0.5) * 0x1p-32;
        data[4 * block + lane] = static_cast<T>(scale * normal_quantile(tail + uniform * (1 - 2 * tail)));
      }
    }
  });
}

}  // namespace

size_t Parameters::add(std::string name, std::vector<int64_t> shape, Initializer initializer, bool decay) {
  require(!master_.defined(), "Parameters::add after allocate");
  ParameterInfo info{std::move(name), std::move(shape), initializer, decay, size_, 1};
  for (const int64_t extent : info.shape) info.count *= extent;
  size_ += (info.count + kAlignment - 1) / kAlignment * kAlignment;
  count_ += info.count;
  infos_.push_back(std::move(info));
  return infos_.size() - 1;
}

void Parameters::allocate(const at::Device& device, at::ScalarType compute_type, at::ScalarType master_type) {
  const auto options = at::TensorOptions().device(device).dtype(master_type);
  master_ = at::zeros({size_}, options);
  gradient_ = at::zeros({size_}, options);
  compute_ = compute_type == master_type ? master_ : at::zeros({size_}, options.dtype(compute_type));
}

void Parameters::initialize(uint64_t seed) {
  at::NoGradGuard no_grad;
  at::Tensor host = master_.is_cpu() ? master_ : at::zeros({size_}, master_.options().device(at::kCPU));
  for (size_t i = 0; i < infos_.size(); ++i) {
    const ParameterInfo& info = infos_[i];
    at::Tensor values = view(host, i);
    if (info.initializer == Initializer::zeros || info.initializer == Initializer::ones) {
      values.fill_(info.initializer == Initializer::ones ? 1 : 0);
      continue;
    }
    const double deviation = 1 / std::sqrt(static_cast<double>(info.shape.back()));
    const bool truncated = info.initializer == Initializer::lecun_normal;
    if (host.scalar_type() == at::kDouble) {
      fill_normal(values.data_ptr<double>(), info.count, seed, i, deviation, truncated);
    } else {
      fill_normal(values.data_ptr<float>(), info.count, seed, i, deviation, truncated);
    }
  }
  if (!host.is_same(master_)) master_.copy_(host);
  refresh_compute();
}

void Parameters::refresh_compute() {
  at::NoGradGuard no_grad;
  if (!compute_.is_same(master_)) compute_.copy_(master_);
}

size_t Parameters::index(const std::string& name) const {
  for (size_t i = 0; i < infos_.size(); ++i) {
    if (infos_[i].name == name) return i;
  }
  throw InternalError("no parameter named " + name);
}

at::Tensor Parameters::view(const at::Tensor& flat, size_t index) const {
  const ParameterInfo& info = infos_[index];
  return flat.narrow(0, info.offset, info.count).view(info.shape);
}

at::Tensor Parameters::master(size_t index) const { return view(master_, index); }
at::Tensor Parameters::gradient(size_t index) const { return view(gradient_, index); }
at::Tensor Parameters::compute(size_t index) const { return view(compute_, index); }

}  // namespace polysketch
