// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/tensor_file.hpp"

namespace polysketch {

/// Tensors that belong together in a checkpoint ("model", "optimizer"), to be written by one
/// process or by several. Every process has the same list; data is needed of the tensors that it
/// writes itself.
struct TensorGroup {
  std::string name;
  std::vector<TensorView> tensors;
  std::map<std::string, std::string> metadata;
  std::vector<std::shared_ptr<const void>> owned = {};  ///< what data points into, kept alive
};

/// Which of at most `writers` files each tensor goes into, from 0: consecutive tensors, so that
/// what one process writes is one range, in shares of which the largest is as small as it can be.
/// There are fewer shares than writers when that makes none larger. A pure function of the sizes,
/// so that all processes know it.
std::vector<int64_t> share_out(const std::vector<uint64_t>& bytes, int64_t writers);
std::vector<int64_t> share_out(const std::vector<TensorView>& tensors, int64_t writers);

/// `model.safetensors`; file 1 of 3 (counted from 0): `model-00002-of-00003.safetensors`, as other
/// programs name them.
std::string tensor_file_name(const std::string& group, int64_t file, int64_t files);

/// Writes what falls to process `rank` of `world`: at most one file a group. Errors as
/// write_safetensors.
std::vector<FileRecord> write_share(const std::filesystem::path& folder,
                                    const std::vector<TensorGroup>& groups, int64_t rank,
                                    int64_t world);

/// `<group>.safetensors.index.json`, by which other programs find a tensor among several files:
/// `weight_map` from tensor to file, and `metadata.total_size`. Written for each group that has
/// more than one file.
std::vector<FileRecord> write_indexes(const std::filesystem::path& folder,
                                      const std::vector<TensorGroup>& groups, int64_t world);

/// The tensors of one group of a checkpoint, in whichever of its files they lie.
class TensorSet {
 public:
  /// `files`: of the checkpoint's manifest. Throws UserError 81 if it lists no such group or not
  /// all of its files or if two files hold the same tensor, 65 if a file is none.
  TensorSet(const std::filesystem::path& folder, const std::vector<FileRecord>& files,
            const std::string& group);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  size_t files() const { return files_.size(); }
  const TensorInfo* find(const std::string& name) const;
  /// Copies the tensor's bytes to `target` (info.bytes long). Throws UserError 81 if they are not
  /// those that were saved (CRC-32C): files are verified by one process and read by all.
  void read(const TensorInfo& info, void* target) const;
  /// What messages call the set: the path of its file; of several
  /// `<folder>/model-*-of-00003.safetensors`.
  const std::string& where() const { return where_; }

 private:
  struct File {
    TensorFile tensors;
    FileRecord record;
  };
  std::string where_;
  std::vector<File> files_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::pair<size_t, size_t>> places_;  ///< name -> file, index in tensors_
};

/// The groups that a list of files holds, in its order: `model`, `optimizer`.
std::vector<std::string> groups_of(const std::vector<FileRecord>& files);

}  // namespace polysketch
