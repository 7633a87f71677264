// SPDX-License-Identifier: Apache-2.0
#include "model/parameters.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/cpu/row_kernels.hpp"
#include "support/error.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

// elements: a cache line of bf16 twice over, so that no two parameters share one
constexpr int64_t kAlignment = 64;

// The quantile function of the standard normal: Acklam's rational approximation, relative error
// below 1.2e-9.
double normal_quantile(double p) {
  constexpr double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                          1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
  constexpr double b[] = {-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
                          6.680131188771972e+01, -1.328068155288572e+01};
  constexpr double c[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                          -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
  constexpr double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                          3.754408661907416e+00};
  constexpr double low = 0.02425;
  double x = 0;
  if (p < low || p > 1 - low) {
    const double q = std::sqrt(-2 * std::log(p < low ? p : 1 - p));
    x = (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
        ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
    if (p > 1 - low) x = -x;
  } else {
    const double q = p - 0.5, r = q * q;
    x = (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
        (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
  }
  return x;
}

// Philox block i of parameter `index` gives elements 4i … 4i+3, so the values do not depend on how
// the range is divided among threads.
template <typename T>
void fill_normal(T* data, int64_t count, uint64_t seed, uint64_t index, double deviation,
                 bool truncated) {
  // Truncation at two deviations: the uniform draw is mapped into [Phi(-2), Phi(2)]; dividing by
  // the deviation of the truncated normal restores the variance.
  const double tail = truncated ? 0.5 * std::erfc(2 / std::numbers::sqrt2) : 0;
  const double scale = deviation / (truncated ? 0.87962566103423978 : 1);
  at::parallel_for(0, (count + 3) / 4, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const auto bits = philox4x32(
          {static_cast<uint32_t>(block), static_cast<uint32_t>(static_cast<uint64_t>(block) >> 32),
           static_cast<uint32_t>(index), static_cast<uint32_t>(RandomPurpose::parameters)},
          {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
      for (int64_t lane = 0; lane < 4 && 4 * block + lane < count; ++lane) {
        const double uniform = (bits[static_cast<size_t>(lane)] + 0.5) * 0x1p-32;
        data[4 * block + lane] =
            static_cast<T>(scale * normal_quantile(tail + uniform * (1 - 2 * tail)));
      }
    }
  });
}

}  // namespace

int64_t bucket_unit(int64_t world) {
  return world == 1 ? kAlignment : kernels::kSquareBlock * world;
}

int64_t bucket_step(int64_t bucket_elements, int64_t world) {
  const int64_t unit = bucket_unit(world);
  return std::max(unit, bucket_elements / unit * unit);
}

size_t Parameters::add(std::string name, std::vector<int64_t> shape, Initializer initializer,
                       bool decay, bool forward_wide) {
  require(!gradient_.defined(), "Parameters::add after allocate");
  ParameterInfo info{std::move(name), std::move(shape), initializer, decay, forward_wide, size_, 1};
  for (const int64_t extent : info.shape) info.count *= extent;
  size_ += (info.count + kAlignment - 1) / kAlignment * kAlignment;
  count_ += info.count;
  infos_.push_back(std::move(info));
  return infos_.size() - 1;
}

// Buckets from the end of the buffer to its beginning, of equal size but for the last, which takes
// what is left.
void Parameters::divide() {
  const int64_t unit = bucket_unit(sharding_.world),
                step = bucket_step(sharding_.bucket_elements, sharding_.world);
  size_ = (size_ + unit - 1) / unit * unit;
  for (int64_t end = size_; end > 0; end = buckets_.back().begin)
    buckets_.push_back({std::max<int64_t>(0, end - step), end});
  for (const FlatRange& bucket : buckets_) {
    const int64_t part = bucket.count() / sharding_.world,
                  begin = bucket.begin + sharding_.rank * part;
    owned_.push_back({begin, begin + part});
  }
}

void Parameters::allocate(const at::Device& device, at::ScalarType compute_type,
                          at::ScalarType master_type, const ParameterSharding& sharding) {
  sharding_ = sharding;
  divide();
  const auto options = at::TensorOptions().device(device).dtype(master_type);
  gradient_ = at::zeros({size_}, options);
  masters_sharded_ = sharding.masters && sharding.world > 1 && compute_type != master_type;
  if (!masters_sharded_) {
    master_ = at::zeros({size_}, options);
    compute_ =
        compute_type == master_type ? master_ : at::zeros({size_}, options.dtype(compute_type));
    return;
  }
  master_ = at::zeros({size_ / sharding_.world}, options);
  compute_ = at::zeros({size_}, options.dtype(compute_type));
  int64_t wide = 0;
  for (const ParameterInfo& info : infos_) {
    wide_offsets_.push_back(info.forward_wide ? wide : -1);
    if (info.forward_wide) wide += (info.count + kAlignment - 1) / kAlignment * kAlignment;
  }
  wide_ = at::zeros({wide}, options);
}

void Parameters::initialize(uint64_t seed) {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < infos_.size(); ++i) {
    const ParameterInfo& info = infos_[i];
    const auto host = at::TensorOptions().dtype(gradient_.scalar_type());
    if (info.initializer == Initializer::zeros || info.initializer == Initializer::ones) {
      assign(i, at::full(info.shape, info.initializer == Initializer::ones ? 1 : 0, host));
      continue;
    }
    at::Tensor values = at::empty(info.shape, host);
    const double deviation = 1 / std::sqrt(static_cast<double>(info.shape.back()));
    const bool truncated = info.initializer == Initializer::lecun_normal;
    if (values.scalar_type() == at::kDouble) {
      fill_normal(values.data_ptr<double>(), info.count, seed, i, deviation, truncated);
    } else {
      fill_normal(values.data_ptr<float>(), info.count, seed, i, deviation, truncated);
    }
    assign(i, values);
  }
}

void Parameters::assign(size_t index, const at::Tensor& value) {
  at::NoGradGuard no_grad;
  const ParameterInfo& info = infos_.at(index);
  const at::Tensor flat = value.reshape({-1}).to(gradient_.device());
  if (!masters_sharded_) {
    master_.narrow(0, info.offset, info.count).copy_(flat);
    if (!compute_.is_same(master_)) compute_.narrow(0, info.offset, info.count).copy_(flat);
    return;
  }
  compute_.narrow(0, info.offset, info.count).copy_(flat);
  if (info.forward_wide) wide_.narrow(0, wide_offsets_[index], info.count).copy_(flat);
  for (size_t i = 0; i < owned_.size(); ++i) {
    const int64_t begin = std::max(owned_[i].begin, info.offset),
                  end = std::min(owned_[i].end, info.offset + info.count);
    if (begin < end)
      owned_master(i)
          .narrow(0, begin - owned_[i].begin, end - begin)
          .copy_(flat.narrow(0, begin - info.offset, end - begin));
  }
}

at::Tensor Parameters::owned_master(size_t range) const {
  const FlatRange& owned = owned_.at(range);
  if (!masters_sharded_) return master_.narrow(0, owned.begin, owned.count());
  int64_t before = 0;
  for (size_t i = 0; i < range; ++i) before += owned_[i].count();
  return master_.narrow(0, before, owned.count());
}

void Parameters::publish(const FlatRange& bucket, const at::Tensor& masters) {
  at::NoGradGuard no_grad;
  if (!masters_sharded_) {
    at::Tensor own = master_.narrow(0, bucket.begin, bucket.count());
    if (own.data_ptr() != masters.data_ptr()) own.copy_(masters);
    if (!compute_.is_same(master_)) compute_.narrow(0, bucket.begin, bucket.count()).copy_(masters);
    return;
  }
  compute_.narrow(0, bucket.begin, bucket.count()).copy_(masters);
  for (size_t i = 0; i < infos_.size(); ++i) {
    const ParameterInfo& info = infos_[i];
    const int64_t begin = std::max(bucket.begin, info.offset),
                  end = std::min(bucket.end, info.offset + info.count);
    if (!info.forward_wide || begin >= end) continue;
    wide_.narrow(0, wide_offsets_[i] + begin - info.offset, end - begin)
        .copy_(masters.narrow(0, begin - bucket.begin, end - begin));
  }
}

at::Tensor& Parameters::flat_master() {
  require(!masters_sharded_, "this process keeps only a part of the masters");
  return master_;
}

void Parameters::refresh_compute() {
  at::NoGradGuard no_grad;
  if (!masters_sharded_ && !compute_.is_same(master_)) compute_.copy_(master_);
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

at::Tensor Parameters::master(size_t index) const {
  if (!masters_sharded_) return view(master_, index);
  require(infos_[index].forward_wide, "the whole masters of a sharded parameter were asked for");
  return wide_.narrow(0, wide_offsets_[index], infos_[index].count).view(infos_[index].shape);
}
at::Tensor Parameters::gradient(size_t index) const { return view(gradient_, index); }
at::Tensor Parameters::compute(size_t index) const { return view(compute_, index); }

}  // namespace polysketch
