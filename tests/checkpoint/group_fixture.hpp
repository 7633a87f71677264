// SPDX-License-Identifier: Apache-2.0
// What several processes save together in the tests, and how it is recognised.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/tensor_set.hpp"

namespace polysketch::test {

/// Two groups of tensors of very different sizes, whose numbers tell step, group, tensor and place.
class GroupData {
 public:
  explicit GroupData(int64_t step, int64_t scale = 1) : step_(step) {
    for (int group = 0; group < 2; ++group) {
      groups_.push_back({group == 0 ? "model" : "optimizer", {}, {{"format", "pt"}}});
      const int64_t tensors = group == 0 ? 7 : 14;
      for (int64_t i = 0; i < tensors; ++i) {
        const int64_t size = scale * (i % 3 == 0 ? 400 : 10 + i);
        std::vector<float> values(static_cast<size_t>(size));
        for (size_t at = 0; at < values.size(); ++at)
          values[at] = static_cast<float>(step * 10'000 + group * 5'000 + i * 300) +
                       static_cast<float>(at) / 1024;
        values_.push_back(std::move(values));
        groups_.back().tensors.push_back(
            {"tensor." + std::to_string(i), DataType::f32, {size}, values_.back().data()});
      }
    }
  }
  const std::vector<TensorGroup>& groups() const { return groups_; }
  nlohmann::json state() const { return {{"step", step_}, {"tokens", step_ * 7}}; }

 private:
  int64_t step_;
  std::vector<std::vector<float>> values_;
  std::vector<TensorGroup> groups_;
};

inline void save_group(CheckpointStore& store, int64_t step) {
  const GroupData data(step);
  store.save(step, data.groups(), data.state());
}

/// Whether a checkpoint is wholly what GroupData of its step says, whichever files hold it.
inline bool is_whole_group(const CheckpointStore::Loaded& loaded, int64_t scale = 1) {
  const GroupData data(loaded.step, scale);
  if (loaded.manifest.state != data.state()) return false;
  for (const TensorGroup& group : data.groups()) {
    const TensorSet set(loaded.directory, loaded.manifest.files, group.name);
    if (set.tensors().size() != group.tensors.size()) return false;
    for (const TensorView& want : group.tensors) {
      const TensorInfo* found = set.find(want.name);
      if (found == nullptr || found->shape != want.shape || found->type != want.type) return false;
      std::vector<char> bytes(found->bytes);
      set.read(*found, bytes.data());
      if (std::memcmp(bytes.data(), want.data, bytes.size()) != 0) return false;
    }
  }
  return true;
}

}  // namespace polysketch::test
