// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "config/config.hpp"

namespace polysketch::test {

/// One row for every mechanism and variant. A new mechanism gets a row here, and every test of what
/// holds for all runs on it.
struct Mechanism {
  std::string name;
  AttentionConfig config;
  bool contains_nan = true;  ///< NaN in position t leaves rows before t untouched
};

inline std::vector<Mechanism> mechanisms() {
  std::vector<Mechanism> all;
  const auto add = [&](const std::string& name, AttentionKind kind, auto&& set,
                       bool contains_nan = true) {
    AttentionConfig config;
    config.kind = kind;
    // Small numbers, so that short texts have many blocks.
    config.block = 32;
    config.window = 24;
    config.sketch_size = 16;
    set(config);
    all.push_back({name, config, contains_nan});
  };
  const auto none = [](AttentionConfig&) {};
  const auto sketched = [](SketchKind sketch, LocalAttention local, int64_t degree) {
    return [=](AttentionConfig& config) {
      config.sketch = sketch;
      config.local = local;
      config.degree = degree;
    };
  };
  using K = AttentionKind;
  // LibTorch's softmax multiplies hidden values by zero inside a tile: a NaN there reaches earlier
  // rows of the tile.
  add("softmax", K::softmax, none, false);
  add("sliding_window", K::sliding_window, none, false);
  for (const int64_t degree : {2, 4, 8})
    add(fmt::format("polynomial_{}", degree), K::polynomial,
        [=](AttentionConfig& c) { c.degree = degree; });
  add("local_polynomial", K::local_polynomial, none);
  const auto exact = LocalAttention::exact, nothing = LocalAttention::none;
  add("random", K::polysketch, sketched(SketchKind::random, nothing, 4));
  add("random_local", K::polysketch, sketched(SketchKind::random, exact, 4));
  add("learned", K::polysketch, sketched(SketchKind::learned, nothing, 4));
  add("learned_local", K::polysketch, sketched(SketchKind::learned, exact, 4));
  // Degree 2 is no sketch at all, degree 8 a sketch of sketches.
  add("vectors_local_2", K::polysketch, sketched(SketchKind::random, exact, 2));
  add("random_8", K::polysketch, sketched(SketchKind::random, nothing, 8));
  add("learned_local_8", K::polysketch, sketched(SketchKind::learned, exact, 8));
  add("performer", K::performer, [](AttentionConfig& c) { c.features = 64; });
  add("hedgehog", K::hedgehog, none);
  add("hedgehog_48", K::hedgehog, [](AttentionConfig& c) { c.features = 48; });
  return all;
}

}  // namespace polysketch::test
