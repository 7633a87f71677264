// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "attention/ops/chunk_states.hpp"
#include "attention/ops/cpu_rows.hpp"
#include "kernels/cpu/cpu_kernels.hpp"

namespace polysketch::ops {
namespace {

using kernels::bf16;
using kernels::HeadRows;

template <class T>
HeadRows<T> from_row(HeadRows<T> rows, int64_t first) {
  return {rows.data + first * rows.stride, rows.stride};
}

/// One document of one head.
template <class T>
kernels::ChunkHead<T> document_of(const ChunkStatesCall& call, int64_t head, int64_t begin,
                                  int64_t rows) {
  kernels::ChunkHead<T> document;
  document.a = from_row(rows_of<T>(call.a, head), begin);
  document.b = from_row(rows_of<T>(call.b, head), begin);
  document.v = from_row(rows_of<T>(call.v, head), begin);
  document.length = rows;
  document.width = call.a.size(3);
  document.value_width = call.v.size(3);
  document.block = call.block;
  return document;
}

template <class T>
void forward(const ChunkStatesCall& call, const ChunkStatesResult& result) {
  const int64_t heads = call.a.size(1), length = call.a.size(2), width = call.a.size(3),
                values = call.v.size(3);
  const auto& kernel = *kernels::chunk_state_kernels<T>(width, values);
  for_each_item(call.a.size(0) * heads, kernel.forward_scratch(width, values),
                [&](int64_t head, void* scratch) {
                  for (const auto& [begin, rows] : long_documents(call, head / heads)) {
                    kernels::ChunkForward<T> job;
                    job.head = document_of<T>(call, head, begin, rows);
                    job.sum = from_row(mutable_rows_of<float>(result.sum, head), begin);
                    job.row_sum = result.row_sum.mutable_data_ptr<float>() + head * length + begin;
                    kernel.forward(job, scratch);
                  }
                });
}

template <class T>
void backward(const ChunkStatesCall& call, const at::Tensor& sum_gradient,
              const at::Tensor& row_sum_gradient, const ChunkStatesGradients& back) {
  const int64_t heads = call.a.size(1), length = call.a.size(2), width = call.a.size(3),
                values = call.v.size(3);
  const auto& kernel = *kernels::chunk_state_kernels<T>(width, values);
  for_each_item(call.a.size(0) * heads, kernel.backward_scratch(width, values),
                [&](int64_t head, void* scratch) {
                  for (const auto& [begin, rows] : long_documents(call, head / heads)) {
                    kernels::ChunkBackward<T> job;
                    job.head = document_of<T>(call, head, begin, rows);
                    job.sum_gradient = from_row(rows_of<float>(sum_gradient, head), begin);
                    job.row_sum_gradient =
                        row_sum_gradient.const_data_ptr<float>() + head * length + begin;
                    job.a_gradient = from_row(mutable_rows_of<T>(back.a, head), begin);
                    job.b_gradient = from_row(mutable_rows_of<T>(back.b, head), begin);
                    job.v_gradient = from_row(mutable_rows_of<T>(back.v, head), begin);
                    kernel.backward(job, scratch);
                  }
                });
}

ChunkStatesCall with_rows(const ChunkStatesCall& call) {
  ChunkStatesCall ready = call;
  for (at::Tensor* x : {&ready.a, &ready.b, &ready.v}) *x = with_whole_rows(*x);
  return ready;
}

template <class T>
bool has_kernels(const ChunkStatesCall& call) {
  return kernels::chunk_state_kernels<T>(call.a.size(3), call.v.size(3)) != nullptr;
}

bool fits(const ChunkStatesCall& call) {
  if (!call.a.is_cpu() || call.power != 2 || call.log_scale.defined()) return false;
  if (call.a.scalar_type() == at::kFloat) return has_kernels<float>(call);
  return call.a.scalar_type() == at::kBFloat16 && has_kernels<bf16>(call);
}

void forward_any(const ChunkStatesCall& call, const ChunkStatesResult& result) {
  call.a.scalar_type() == at::kFloat ? forward<float>(with_rows(call), result)
                                     : forward<bf16>(with_rows(call), result);
}

void backward_any(const ChunkStatesCall& call, const at::Tensor& sum_gradient,
                  const at::Tensor& row_sum_gradient, const ChunkStatesGradients& back) {
  const at::Tensor sum = with_whole_rows(sum_gradient), row_sum = row_sum_gradient.contiguous();
  call.a.scalar_type() == at::kFloat ? backward<float>(with_rows(call), sum, row_sum, back)
                                     : backward<bf16>(with_rows(call), sum, row_sum, back);
}

}  // namespace

const ChunkStatesImplementation chunk_states_cpu{
    {"cpu", has_head_kernels}, fits, forward_any, backward_any};

}  // namespace polysketch::ops
