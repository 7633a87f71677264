// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "attention/ops/cpu_rows.hpp"
#include "attention/ops/polynomial.hpp"
#include "kernels/cpu/cpu_kernels.hpp"

namespace polysketch::ops {
namespace {

using kernels::bf16;

// queries; below that packing the keys once more costs more than a waiting thread
constexpr int64_t kShortestSlice = 768;

at::Tensor padded(const at::Tensor& x, int64_t width) {
  return x.size(3) == width ? x : at::constant_pad_nd(x, {0, width - x.size(3)}, 0);
}

int64_t widest(const PolynomialCall& call) { return std::max(call.q.size(3), call.v.size(3)); }

/// The kernels want rows of one width: the narrower ones are filled up with zeros.
PolynomialCall even(const PolynomialCall& call) {
  PolynomialCall same = call;
  for (at::Tensor* x : {&same.q, &same.k, &same.v}) *x = padded(*x, widest(call));
  return same;
}

/// The call with everything where the kernels can read it.
template <class T>
class Heads {
 public:
  explicit Heads(const PolynomialCall& call)
      : call_(call),
        q_(with_whole_rows(call.q)),
        k_(with_whole_rows(call.k)),
        v_(with_whole_rows(call.v)) {
    if (call.gain.defined()) {
      gain_ = call.gain.to(at::kFloat).contiguous();
      bias_ = call.bias.to(at::kFloat).contiguous();
    }
    if (call.normaliser_offset.defined()) {
      normaliser_offset_ = static_cast<float>(call.normaliser_offset.item<double>());
      key_scale_ = static_cast<float>(call.key_scale.item<double>());
    }
  }

  kernels::PolynomialHead<T> head(int64_t index) const {
    kernels::PolynomialHead<T> head;
    head.q = rows_of<T>(q_, index);
    head.k = rows_of<T>(k_, index);
    head.v = rows_of<T>(v_, index);
    head.length = q_.size(2);
    head.width = q_.size(3);
    head.degree = call_.degree;
    head.gain = gain_.defined() ? gain_.const_data_ptr<float>() : nullptr;
    head.bias = gain_.defined() ? bias_.const_data_ptr<float>() : nullptr;
    head.epsilon = static_cast<float>(call_.epsilon);
    head.starts = call_.first_keys.defined() ? call_.first_keys.host.const_data_ptr<int32_t>() +
                                                   index / q_.size(1) * q_.size(2)
                                             : nullptr;
    head.key_scale = key_scale_;
    head.normaliser_offset = normaliser_offset_;
    return head;
  }

 private:
  const PolynomialCall& call_;
  at::Tensor q_, k_, v_, gain_, bias_;
  float normaliser_offset_ = 1, key_scale_ = 1;
};

template <class T>
PolynomialResult forward(const PolynomialCall& call) {
  const int64_t heads = call.q.size(0) * call.q.size(1), length = call.q.size(2),
                width = call.q.size(3);
  const auto& kernel = *kernels::polynomial_kernels<T>(width);
  const PolynomialResult result{
      joined_like(call.q),
      at::empty({call.q.size(0), call.q.size(1), length}, call.q.options().dtype(at::kFloat))};
  const Heads<T> inputs(call);
  // Few heads and many threads: cut the queries into slices that cost about the same, area of the
  // triangle by area.
  const int64_t wanted = (4 * at::get_num_threads() + heads - 1) / heads;
  const int64_t slices =
      heads >= 4 * at::get_num_threads()
          ? 1
          : std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, length / kShortestSlice));
  const auto border = [&](int64_t slice) {
    return slice == slices ? length
                           : static_cast<int64_t>(static_cast<double>(length) *
                                                  std::sqrt(static_cast<double>(slice) /
                                                            static_cast<double>(slices)));
  };
  for_each_item(heads * slices, kernel.forward_scratch(length, width),
                [&](int64_t item, void* scratch) {
                  const int64_t head = item / slices, slice = item % slices;
                  const kernels::PolynomialForward<T> job{
                      inputs.head(head), mutable_rows_of<T>(result.output, head),
                      result.normaliser.mutable_data_ptr<float>() + head * length};
                  kernel.forward(job, border(slice), border(slice + 1), scratch);
                });
  return result;
}

template <class T>
PolynomialGradients backward(const PolynomialCall& call, const PolynomialResult& result,
                             const at::Tensor& output_gradient) {
  const int64_t heads = call.q.size(0) * call.q.size(1), length = call.q.size(2),
                width = call.q.size(3);
  const auto& kernel = *kernels::polynomial_kernels<T>(width);
  const Heads<T> inputs(call);
  const at::Tensor gradient = with_whole_rows(output_gradient),
                   output = with_whole_rows(result.output);
  PolynomialGradients back{joined_like(call.q), joined_like(call.q), joined_like(call.q), {}, {}};
  // [heads, D]: one row a head, added up in order, whatever the threads did
  at::Tensor dgain, dbias;
  if (call.gain.defined()) {
    dgain = at::empty({heads, width}, at::kFloat);
    dbias = at::empty({heads, width}, at::kFloat);
  }
  for_each_item(heads, kernel.backward_scratch(length, width), [&](int64_t head, void* scratch) {
    kernels::PolynomialBackward<T> job;
    job.head = inputs.head(head);
    job.output = rows_of<T>(output, head);
    job.normaliser = result.normaliser.const_data_ptr<float>() + head * length;
    job.output_gradient = rows_of<T>(gradient, head);
    job.dq = mutable_rows_of<T>(back.q, head);
    job.dk = mutable_rows_of<T>(back.k, head);
    job.dv = mutable_rows_of<T>(back.v, head);
    job.dgain = dgain.defined() ? dgain.mutable_data_ptr<float>() + head * width : nullptr;
    job.dbias = dbias.defined() ? dbias.mutable_data_ptr<float>() + head * width : nullptr;
    kernel.backward(job, scratch);
  });
  if (dgain.defined()) {
    back.gain = dgain.sum(0).to(call.gain.scalar_type());
    back.bias = dbias.sum(0).to(call.bias.scalar_type());
  }
  return back;
}

template <class T>
bool has_kernels(const PolynomialCall& call) {
  return kernels::polynomial_kernels<T>(widest(call)) != nullptr;
}

bool fits(const PolynomialCall& call) {
  if (!call.q.is_cpu() || call.tile != 0 || call.degree % 2 != 0 || call.log_scale.defined() ||
      (call.gain.defined() && call.q.size(3) != call.v.size(3)))
    return false;
  if (call.q.scalar_type() == at::kFloat) return has_kernels<float>(call);
  return call.q.scalar_type() == at::kBFloat16 && has_kernels<bf16>(call);
}

PolynomialResult forward_any(const PolynomialCall& call) {
  PolynomialResult result =
      call.q.scalar_type() == at::kFloat ? forward<float>(even(call)) : forward<bf16>(even(call));
  result.output = result.output.narrow(3, 0, call.v.size(3));
  return result;
}

PolynomialGradients backward_any(const PolynomialCall& call, const PolynomialResult& result,
                                 const at::Tensor& output_gradient) {
  const PolynomialResult wide{padded(result.output, widest(call)), result.normaliser};
  const at::Tensor gradient = padded(output_gradient, widest(call));
  PolynomialGradients back = call.q.scalar_type() == at::kFloat
                                 ? backward<float>(even(call), wide, gradient)
                                 : backward<bf16>(even(call), wide, gradient);
  back.q = back.q.narrow(3, 0, call.q.size(3));
  back.k = back.k.narrow(3, 0, call.k.size(3));
  back.v = back.v.narrow(3, 0, call.v.size(3));
  return back;
}

}  // namespace

const PolynomialImplementation polynomial_cpu{
    {"cpu", has_head_kernels}, fits, forward_any, backward_any};

}  // namespace polysketch::ops
