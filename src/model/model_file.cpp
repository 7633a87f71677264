// SPDX-License-Identifier: Apache-2.0
#include "model/model_file.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "support/error.hpp"

namespace polysketch {
namespace {

DataType data_type(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return DataType::f64;
    case at::kFloat:
      return DataType::f32;
    case at::kBFloat16:
      return DataType::bf16;
    default:
      throw InternalError("parameters of an unexpected type");
  }
}

std::string describe(const TensorInfo& info) {
  return fmt::format("{} [{}]", safetensors_name(info.type), fmt::join(info.shape, ", "));
}

}  // namespace

TensorGroup tensor_group(const std::string& name, const Parameters& parameters,
                         const std::vector<NamedBuffer>& buffers, const Peers& peers) {
  const at::ScalarType type = buffers.at(0).second.scalar_type();
  TensorGroup group{name, {}, {{"format", "pt"}}, {}};
  const auto ranges = written_elements(parameters, type, buffers.size(), peers.rank, peers.world);
  for (size_t i = 0; i < buffers.size(); ++i) {
    const auto [begin, end] = ranges[i];
    const auto own = std::make_shared<at::Tensor>(
        buffers[i].second.narrow(0, begin, end - begin).to(at::kCPU).contiguous());
    group.owned.push_back(own);
    const auto* bytes = static_cast<const char*>(own->data_ptr());
    for (const ParameterInfo& info : parameters.infos()) {
      const bool mine = info.offset >= begin && info.offset + info.count <= end;
      const void* data =
          mine ? bytes + (info.offset - begin) * static_cast<int64_t>(own->element_size())
               : nullptr;
      group.tensors.push_back({buffers[i].first + info.name, data_type(type), info.shape, data});
    }
  }
  return group;
}

std::vector<std::pair<int64_t, int64_t>> written_elements(const Parameters& parameters,
                                                          at::ScalarType type, size_t buffers,
                                                          int64_t rank, int64_t world) {
  const auto& infos = parameters.infos();
  std::vector<uint64_t> bytes;
  for (size_t i = 0; i < buffers; ++i) {
    for (const ParameterInfo& info : infos)
      bytes.push_back(static_cast<uint64_t>(info.count * size_of(data_type(type))));
  }
  const std::vector<int64_t> owners = share_out(bytes, world);
  std::vector<std::pair<int64_t, int64_t>> ranges(buffers, {0, 0});
  for (size_t i = 0; i < owners.size(); ++i) {
    if (owners[i] != rank) continue;
    auto& [begin, end] = ranges[i / infos.size()];
    const ParameterInfo& info = infos[i % infos.size()];
    if (begin == end) begin = info.offset;
    end = info.offset + info.count;
  }
  return ranges;
}

void load_tensors(const Parameters& parameters, const TensorSet& set, const std::string& prefix,
                  const std::function<void(size_t index, const at::Tensor& value)>& take) {
  const auto host = at::TensorOptions().dtype(parameters.master_type());
  const DataType type = data_type(parameters.master_type());
  std::vector<std::string> differences;
  std::set<std::string> expected;
  for (const ParameterInfo& info : parameters.infos()) {
    const TensorInfo wanted{prefix + info.name, type, info.shape, 0, 0};
    expected.insert(wanted.name);
    const TensorInfo* found = set.find(wanted.name);
    if (found == nullptr) {
      differences.push_back(wanted.name + " is missing");
    } else if (found->shape != wanted.shape || found->type != wanted.type) {
      differences.push_back(fmt::format("{} is {}, the model wants {}", wanted.name,
                                        describe(*found), describe(wanted)));
    }
  }
  for (const TensorInfo& found : set.tensors()) {
    if (found.name.starts_with(prefix) && !expected.contains(found.name))
      differences.push_back(found.name + " is not a parameter of this model");
  }
  if (!differences.empty()) {
    const size_t shown = std::min<size_t>(differences.size(), 10);
    std::string text = fmt::format(
        "{}", fmt::join(differences.begin(),
                        differences.begin() + static_cast<std::ptrdiff_t>(shown), "; "));
    if (shown < differences.size())
      text += fmt::format("; and {} more", differences.size() - shown);
    throw UserError(ExitCode::no_checkpoint,
                    fmt::format("{}: does not fit the model: {}: check model.* and attention.*",
                                set.where(), text));
  }
  for (size_t i = 0; i < parameters.infos().size(); ++i) {
    const ParameterInfo& info = parameters.infos()[i];
    const TensorInfo& found = *set.find(prefix + info.name);
    const at::Tensor value = at::empty(info.shape, host);
    set.read(found, value.data_ptr());
    if (!at::isfinite(value).all().item<bool>()) {
      throw UserError(
          ExitCode::no_checkpoint,
          fmt::format("{}: {} holds values that are not finite: use an older checkpoint",
                      set.where(), found.name));
    }
    take(i, value);
  }
}

}  // namespace polysketch
