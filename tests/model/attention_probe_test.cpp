// SPDX-License-Identifier: Apache-2.0
#include "model/attention_probe.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

#include "model/transformer.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

constexpr int64_t kLayers = 3, kHeads = 4, kLength = 100;

/// A layer's q and k whose numbers tell sequence, head and position.
at::Tensor numbered(int64_t batch) {
  const at::Tensor b = at::arange(batch).view({-1, 1, 1, 1}),
                   h = at::arange(kHeads).view({1, -1, 1, 1});
  return ((b * 10 + h) * 1000 + at::arange(kLength).view({1, 1, -1, 1}))
      .expand({batch, kHeads, kLength, 2})
      .to(at::kDouble);
}

TEST(AttentionProbe, IsAPureFunctionOfSeedAndStep) {
  std::set<int64_t> heads, sequences;
  for (int64_t step = 0; step < 40; ++step) {
    AttentionProbe one(5, step, kLayers, kHeads, 3, kLength, {}),
        same(5, step, kLayers, kHeads, 3, kLength, {});
    EXPECT_TRUE(one.positions().equal(same.positions()));
    const at::Tensor x = numbered(3);
    for (size_t layer = 0; layer < kLayers; ++layer) {
      EXPECT_EQ(one.layers()[layer].head, same.layers()[layer].head);
      heads.insert(one.layers()[layer].head);
      one.take(layer, x, x);
    }
    sequences.insert(one.layers()[0].keys.flatten()[0].item<int64_t>() / 10'000);
    AttentionProbe other(6, step, kLayers, kHeads, 3, kLength, {});
    EXPECT_FALSE(one.positions().equal(other.positions()));
  }
  EXPECT_EQ(heads.size(), kHeads) << "every head has its turn";
  EXPECT_EQ(sequences.size(), 3u);
}

TEST(AttentionProbe, TakesCopiesOfOneDocumentAndHead) {
  at::Tensor ids = at::zeros({2, kLength}, at::kInt);
  ids.narrow(1, 20, 37).fill_(1);
  ids.narrow(1, 57, 43).fill_(2);
  const Documents documents(ids);
  std::set<int64_t> lengths;
  for (int64_t step = 0; step < 30; ++step) {
    AttentionProbe probe(1, step, kLayers, kHeads, 2, kLength, documents);
    const at::Tensor q = numbered(2), k = q + 0.5;
    probe.take(1, q, k);
    probe.take(1, k, q);  // what comes later does not count
    const AttentionProbe::Layer& layer = probe.layers()[1];
    EXPECT_FALSE(probe.layers()[0].keys.defined());
    const int64_t length = layer.keys.size(2);
    lengths.insert(length);
    const int64_t first = length == 20 ? 0 : length == 37 ? 20 : 57;
    EXPECT_EQ(probe.positions().size(0), std::min<int64_t>(length, AttentionProbe::kQueries));
    EXPECT_TRUE(probe.positions().diff().gt(0).all().item<bool>());
    EXPECT_LT(probe.positions().max().item<int64_t>(), length);
    const at::Tensor key = layer.keys.select(3, 0).flatten(),
                     query = layer.queries.select(3, 0).flatten();
    const double base = key[0].item<double>() - 0.5 - static_cast<double>(first);
    EXPECT_EQ(static_cast<int64_t>(base) % 10'000, 1000 * layer.head);
    EXPECT_TRUE(
        key.equal(at::arange(length).to(at::kDouble) + base + 0.5 + static_cast<double>(first)));
    EXPECT_TRUE(query.equal(probe.positions().to(at::kDouble) + base + static_cast<double>(first)));
    const_cast<at::Tensor&>(k).zero_();
    EXPECT_NE(layer.keys.abs().sum().item<double>(), 0) << "a copy";
  }
  EXPECT_EQ(lengths, (std::set<int64_t>{20, 37, 43}));
}

Transformer::Options tiny(AttentionKind kind, bool recompute) {
  Transformer::Options options;
  options.model.size = ModelSize::custom;
  options.model.layers = 2;
  options.model.width = 32;
  options.model.heads = 2;
  options.model.hidden = 40;
  options.model.vocabulary = 61;
  options.model.recompute = recompute;
  options.attention.kind = kind;
  options.attention.block = options.attention.sketch_size = 8;
  return options;
}

/// Loss and gradients with a probe are those without, bit for bit, and the probe has seen what
/// attention saw.
TEST(AttentionProbe, ChangesNothing) {
  for (const bool recompute : {false, true}) {
    for (const AttentionKind kind : {AttentionKind::softmax, AttentionKind::polysketch}) {
      Philox random(11, RandomPurpose::test);
      at::Tensor ids = at::empty({3, 41}, at::kLong);
      for (int64_t i = 0; i < ids.numel(); ++i)
        ids.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(random.bounded(61));
      Transformer plain(tiny(kind, recompute)), watched(tiny(kind, recompute));
      ModelInput input{.ids = ids.narrow(1, 0, 40).contiguous(),
                       .targets = ids.narrow(1, 1, 40).contiguous(),
                       .documents = {},
                       .dropout = {}};
      const at::Tensor loss = plain.forward_backward(input, 1);
      AttentionProbe probe(1, 2, 2, 2, 3, 40, {});
      input.probe = &probe;
      EXPECT_TRUE(watched.forward_backward(input, 1).equal(loss));
      EXPECT_TRUE(watched.parameters().flat_gradient().equal(plain.parameters().flat_gradient()));
      for (const AttentionProbe::Layer& layer : probe.layers()) {
        ASSERT_TRUE(layer.keys.defined());
        EXPECT_EQ(layer.keys.sizes(), (std::vector<int64_t>{1, 1, 40, 16}));
        EXPECT_EQ(layer.queries.sizes(), (std::vector<int64_t>{1, 1, 32, 16}));
        EXPECT_FALSE(layer.keys.requires_grad());
      }
    }
  }
}

}  // namespace
}  // namespace polysketch
