// SPDX-License-Identifier: Apache-2.0
// Forward and backward pass of one head over its blocks. Included after chunk_state.inl.

/// Where blocks begin and end.
template <class T>
struct Blocks {
  const ChunkHead<T>& head;

  int64_t count() const { return (head.length + head.block - 1) / head.block; }
  int64_t begin(int64_t i) const { return i * head.block; }
  int64_t end(int64_t i) const { return std::min(head.length, begin(i) + head.block); }
};

template <class Work>
void for_each_panel(int64_t begin, int64_t end, Work work) {
  for (int64_t row = begin; row < end; row += kPanel) work(row, std::min(row + kPanel, end));
}

/// The values of a panel as `write_state` takes them.
template <class Products>
void pack_value_rows(const StateScratch& s) {
  const int64_t stride = value_stride<Products>(s.value_width);
  pack_units<Products>(s.values, stride, s.temporary);
  transpose(s.temporary, kPanel / Products::kUnit, stride, s.value_rows, kPanel / Products::kUnit);
}

/// The values of a panel as `pull_back` takes them.
template <class Products>
void pack_value_columns(const StateScratch& s) {
  pack_lanes<Products>(s.values, value_stride<Products>(s.value_width), s.temporary,
                       s.value_columns);
}

/// The state behind block i from that before it.
template <class Products, class T>
void pass_block(const Blocks<T>& blocks, int64_t i, const StateScratch& s) {
  for_each_panel(blocks.begin(i), blocks.end(i), [&](int64_t begin, int64_t end) {
    load_features(blocks.head.b, begin, end, s);
    load_values<Products>(blocks.head.v, nullptr, begin, end, s);
    pack_value_rows<Products>(s);
    write_state<Products>(end - begin, s);
  });
}

template <class Products, class T>
void chunk_forward(const ChunkForward<T>& call, void* scratch) {
  const ChunkHead<T>& head = call.head;
  const StateScratch s = state_scratch<Products>(scratch, head.width, head.value_width, false);
  const Blocks<T> blocks{head};
  clear_state(s);
  store_zeros(call.sum, head.value_width, 0, blocks.end(0));
  std::fill(call.row_sum, call.row_sum + blocks.end(0), 0.0F);
  for (int64_t i = 1; i < blocks.count(); ++i) {
    pass_block<Products>(blocks, i - 1, s);
    round_along<Products>(s);
    for_each_panel(blocks.begin(i), blocks.end(i), [&](int64_t begin, int64_t end) {
      load_features(head.a, begin, end, s);
      turn_rows(s);
      read_state<Products>(s.columns, s);
      store_lanes(s.product, s.value_width, call.sum, begin, end, s.output);
      // Rounded products can add up to a little less than the zero that squares cannot fall below.
      // The maximum keeps a NaN.
      float* sums = s.product + s.value_width * kPanel;
      for (int64_t r = 0; r < kPanel; r += kLanes)
        store(sums + r, _mm512_max_ps(_mm512_setzero_ps(), load(sums + r)));
      std::memcpy(call.row_sum + begin, sums, static_cast<size_t>(end - begin) * sizeof(float));
    });
  }
}

/// Gradients of the queries, from the states in order.
template <class Products, class T>
void query_gradients(const ChunkBackward<T>& call, const Blocks<T>& blocks, const StateScratch& s) {
  clear_state(s);
  store_zeros(call.a_gradient, s.width, 0, blocks.end(0));
  for (int64_t i = 1; i < blocks.count(); ++i) {
    pass_block<Products>(blocks, i - 1, s);
    round_turned<Products>(s);
    for_each_panel(blocks.begin(i), blocks.end(i), [&](int64_t begin, int64_t end) {
      load_features(call.head.a, begin, end, s);
      turn_rows(s);
      load_values<Products>(call.sum_gradient, call.row_sum_gradient, begin, end, s);
      pack_value_columns<Products>(s);
      pull_back<Products>(s);
      store_lanes(s.gradient, s.width, call.a_gradient, begin, end, s.output);
    });
  }
}

/// Gradients of keys and values, from the states of the later queries and their cotangents, blocks
/// in reverse order.
template <class Products, class T>
void key_gradients(const ChunkBackward<T>& call, const Blocks<T>& blocks, const StateScratch& s) {
  const ChunkHead<T>& head = call.head;
  const int64_t last = blocks.count() - 1;
  clear_state(s);
  store_zeros(call.b_gradient, s.width, blocks.begin(last), blocks.end(last));
  store_zeros(call.v_gradient, s.value_width, blocks.begin(last), blocks.end(last));
  for (int64_t i = last - 1; i >= 0; --i) {
    for_each_panel(blocks.begin(i + 1), blocks.end(i + 1), [&](int64_t begin, int64_t end) {
      load_features(head.a, begin, end, s);
      load_values<Products>(call.sum_gradient, call.row_sum_gradient, begin, end, s);
      pack_value_rows<Products>(s);
      write_state<Products>(end - begin, s);
    });
    round_along<Products>(s);
    round_turned<Products>(s);
    for_each_panel(blocks.begin(i), blocks.end(i), [&](int64_t begin, int64_t end) {
      load_features(head.b, begin, end, s);
      turn_rows(s);
      read_state<Products>(s.value_width, s);
      store_lanes(s.product, s.value_width, call.v_gradient, begin, end, s.output);
      load_values<Products>(head.v, nullptr, begin, end, s);
      pack_value_columns<Products>(s);
      pull_back<Products>(s);
      store_lanes(s.gradient, s.width, call.b_gradient, begin, end, s.output);
    });
  }
}

template <class Products, class T>
void chunk_backward(const ChunkBackward<T>& call, void* scratch) {
  const StateScratch s =
      state_scratch<Products>(scratch, call.head.width, call.head.value_width, true);
  const Blocks<T> blocks{call.head};
  query_gradients<Products>(call, blocks, s);
  key_gradients<Products>(call, blocks, s);
}

template <class Products>
size_t chunk_forward_bytes(int64_t width, int64_t value_width) {
  return state_scratch<Products>(nullptr, width, value_width, false).bytes;
}

template <class Products>
size_t chunk_backward_bytes(int64_t width, int64_t value_width) {
  return state_scratch<Products>(nullptr, width, value_width, true).bytes;
}
