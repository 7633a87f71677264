// SPDX-License-Identifier: Apache-2.0
// Forward and backward pass of one head over its blocks. Included after causal_blocks_state.inl.

/// Where blocks begin and end, and which of their rows see and are seen across a boundary.
template <class T>
struct Blocks {
  const CausalHead<T>& head;

  int64_t count() const { return (head.length + head.block - 1) / head.block; }
  int64_t begin(int64_t i) const { return i * head.block; }
  int64_t end(int64_t i) const { return std::min(head.length, begin(i) + head.block); }

  /// End of the rows of block i that see keys before it. They all belong to the document that the
  /// block begins in the middle of.
  int64_t looking_back(int64_t i) const {
    if (i == 0 || i >= count()) return std::min(head.length, begin(i));
    if (head.starts == nullptr) return end(i);
    return std::lower_bound(head.starts + begin(i), head.starts + end(i), begin(i)) - head.starts;
  }
  /// First key of block i that later blocks see, if it has any: where its last document begins.
  int64_t first_lasting(int64_t i) const {
    return head.starts == nullptr ? begin(i) : std::max<int64_t>(begin(i), head.starts[end(i) - 1]);
  }
  /// Whether block i + 1 continues the last document of block i. If not, no state passes between
  /// them.
  bool lasts(int64_t i) const { return looking_back(i + 1) > begin(i + 1); }
  /// Whether what came before block i is hidden from what comes after it.
  bool forgets(int64_t i) const {
    return head.starts != nullptr && head.starts[end(i) - 1] >= begin(i);
  }
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
  if (blocks.forgets(i)) clear_state(s);
  for_each_panel(blocks.first_lasting(i), blocks.end(i), [&](int64_t begin, int64_t end) {
    load_features(blocks.head.b, begin, end, s);
    load_values<Products>(blocks.head.v, nullptr, begin, end, s);
    pack_value_rows<Products>(s);
    write_state<Products>(end - begin, s);
  });
}

template <class Products, class T>
void causal_forward(const CausalForward<T>& call, void* scratch) {
  const CausalHead<T>& head = call.head;
  const StateScratch s = state_scratch<Products>(scratch, head.width, head.value_width, false);
  const Blocks<T> blocks{head};
  clear_state(s);
  for (int64_t i = 0; i < blocks.count(); ++i) {
    const int64_t back = blocks.looking_back(i);
    if (back > blocks.begin(i)) round_along<Products>(s);
    for_each_panel(blocks.begin(i), back, [&](int64_t begin, int64_t end) {
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
    store_zeros(call.sum, head.value_width, back, blocks.end(i));
    std::fill(call.row_sum + back, call.row_sum + blocks.end(i), 0.0F);
    if (blocks.lasts(i)) pass_block<Products>(blocks, i, s);
  }
}

/// Gradients of the queries, from the states in order.
template <class Products, class T>
void query_gradients(const CausalBackward<T>& call, const Blocks<T>& blocks,
                     const StateScratch& s) {
  clear_state(s);
  for (int64_t i = 0; i < blocks.count(); ++i) {
    const int64_t back = blocks.looking_back(i);
    if (back > blocks.begin(i)) round_turned<Products>(s);
    for_each_panel(blocks.begin(i), back, [&](int64_t begin, int64_t end) {
      load_features(call.head.a, begin, end, s);
      turn_rows(s);
      load_values<Products>(call.sum_gradient, call.row_sum_gradient, begin, end, s);
      pack_value_columns<Products>(s);
      pull_back<Products>(s);
      store_lanes(s.gradient, s.width, call.a_gradient, begin, end, s.output);
    });
    store_zeros(call.a_gradient, s.width, back, blocks.end(i));
    if (blocks.lasts(i)) pass_block<Products>(blocks, i, s);
  }
}

/// Gradients of keys and values, from the states of the later queries and their cotangents, blocks
/// in reverse order.
template <class Products, class T>
void key_gradients(const CausalBackward<T>& call, const Blocks<T>& blocks, const StateScratch& s) {
  const CausalHead<T>& head = call.head;
  clear_state(s);
  for (int64_t i = blocks.count() - 1; i >= 0; --i) {
    const int64_t next = i + 1, first = blocks.lasts(i) ? blocks.first_lasting(i) : blocks.end(i);
    if (next < blocks.count() && blocks.forgets(next)) clear_state(s);
    for_each_panel(blocks.begin(next), blocks.looking_back(next), [&](int64_t begin, int64_t end) {
      load_features(head.a, begin, end, s);
      load_values<Products>(call.sum_gradient, call.row_sum_gradient, begin, end, s);
      pack_value_rows<Products>(s);
      write_state<Products>(end - begin, s);
    });
    store_zeros(call.b_gradient, s.width, blocks.begin(i), first);
    store_zeros(call.v_gradient, s.value_width, blocks.begin(i), first);
    if (first < blocks.end(i)) {
      round_along<Products>(s);
      round_turned<Products>(s);
    }
    for_each_panel(first, blocks.end(i), [&](int64_t begin, int64_t end) {
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
void causal_backward(const CausalBackward<T>& call, void* scratch) {
  const StateScratch s =
      state_scratch<Products>(scratch, call.head.width, call.head.value_width, true);
  const Blocks<T> blocks{call.head};
  query_gradients<Products>(call, blocks, s);
  key_gradients<Products>(call, blocks, s);
}

template <class Products>
size_t causal_forward_bytes(int64_t width, int64_t value_width) {
  return state_scratch<Products>(nullptr, width, value_width, false).bytes;
}

template <class Products>
size_t causal_backward_bytes(int64_t width, int64_t value_width) {
  return state_scratch<Products>(nullptr, width, value_width, true).bytes;
}
