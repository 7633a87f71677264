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

std::string describe(const TensorInfo& info) { return fmt::format("{} [{}]", safetensors_name(info.type), fmt::join(info.shape, ", ")); }

}  // namespace

std::vector<TensorView> tensor_views(const Parameters& parameters, const at::Tensor& flat, const std::string& prefix, at::Tensor& storage) {
  storage = flat.to(at::kCPU).contiguous();
  const auto* bytes = static_cast<const char*>(storage.data_ptr());
  std::vector<TensorView> views;
  for (const ParameterInfo& info : parameters.infos()) {
    views.push_back({prefix + info.name, data_type(storage.scalar_type()), info.shape,
                     bytes + static_cast<size_t>(info.offset) * storage.element_size()});
  }
  return views;
}

void load_tensors(const Parameters& parameters, at::Tensor flat, const TensorFile& file, const std::string& prefix,
                  const std::string& where) {
  at::Tensor host = flat.is_cpu() ? flat : at::zeros(flat.sizes(), flat.options().device(at::kCPU));
  const DataType type = data_type(host.scalar_type());
  std::vector<std::string> differences;
  std::set<std::string> expected;
  for (const ParameterInfo& info : parameters.infos()) {
    const TensorInfo wanted{prefix + info.name, type, info.shape, 0, 0};
    expected.insert(wanted.name);
    const TensorInfo* found = file.find(wanted.name);
    if (found == nullptr) {
      differences.push_back(wanted.name + " is missing");
    } else if (found->shape != wanted.shape || found->type != wanted.type) {
      differences.push_back(fmt::format("{} is {}, the model wants {}", wanted.name, describe(*found), describe(wanted)));
    }
  }
  for (const TensorInfo& found : file.tensors()) {
    if (found.name.starts_with(prefix) && !expected.contains(found.name))
      differences.push_back(found.name + " is not a parameter of this model");
  }
  if (!differences.empty()) {
    const size_t shown = std::min<size_t>(differences.size(), 10);
    std::string text = fmt::format("{}", fmt::join(differences.begin(), differences.begin() + static_cast<std::ptrdiff_t>(shown), "; "));
    if (shown < differences.size()) text += fmt::format("; and {} more", differences.size() - shown);
    throw UserError(ExitCode::no_checkpoint, fmt::format("{}: does not fit the model: {}: check model.* and attention.*", where, text));
  }
  auto* bytes = static_cast<char*>(host.data_ptr());
  for (const ParameterInfo& info : parameters.infos()) {
    const TensorInfo& found = *file.find(prefix + info.name);
    file.read(found, bytes + static_cast<size_t>(info.offset) * host.element_size());
    if (!at::isfinite(host.narrow(0, info.offset, info.count)).all().item<bool>()) {
      throw UserError(ExitCode::no_checkpoint,
                      fmt::format("{}: {} holds values that are not finite: use an older checkpoint", where, found.name));
    }
  }
  if (!host.is_same(flat)) flat.copy_(host);
}

}  // namespace polysketch
