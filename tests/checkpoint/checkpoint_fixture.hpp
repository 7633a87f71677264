// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/tensor_file.hpp"

namespace polysketch::test {

/// What a little checkpoint of step s holds: two files and a state that can each be told from those
/// of any other step.
inline std::vector<float> values_of(int64_t step, int file) {
  std::vector<float> values(200);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(step * 1000 + file * 500 + static_cast<int64_t>(i));
  return values;
}

inline void save_step(CheckpointStore& store, int64_t step) {
  CheckpointStore::Save save(store, step);
  std::vector<FileRecord> files;
  for (int file = 0; file < 2; ++file) {
    const auto values = values_of(step, file);
    files.push_back(write_safetensors(
        save.directory() / (file == 0 ? "model.safetensors" : "optimizer.safetensors"),
        {{"first", DataType::f32, {100}, values.data()},
         {"second", DataType::f32, {10, 10}, values.data() + 100}}));
  }
  save.commit(std::move(files),
              {{"step", step}, {"tokens", step * 7}, {"loss", 0.1}, {"text", "\xC3\xA9\n"}});
}

/// Whether the checkpoint is wholly that of its step.
inline bool is_whole(const CheckpointStore::Loaded& loaded) {
  if (loaded.manifest.state.at("step") != loaded.step) return false;
  for (int file = 0; file < 2; ++file) {
    const TensorFile tensors(loaded.directory /
                             (file == 0 ? "model.safetensors" : "optimizer.safetensors"));
    const auto want = values_of(loaded.step, file);
    std::vector<float> got(200);
    tensors.read(*tensors.find("first"), got.data());
    tensors.read(*tensors.find("second"), got.data() + 100);
    if (got != want) return false;
  }
  return true;
}

inline CheckpointConfig keep(int64_t last, int64_t every = 0) {
  CheckpointConfig config;
  config.keep_last = last;
  config.keep_every = every;
  return config;
}

}  // namespace polysketch::test
