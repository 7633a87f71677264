// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/tensor_file.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// One safetensors entry for every parameter, cut out of a flat buffer laid out like the masters (masters themselves, or a moment), under
/// `prefix` + parameter name. The buffer is copied to the host if it is not there; `storage` keeps that copy alive.
std::vector<TensorView> tensor_views(const Parameters& parameters, const at::Tensor& flat, const std::string& prefix, at::Tensor& storage);

/// Fills a flat buffer from the entries of a file. Throws UserError 81 listing up to ten tensors that are missing, superfluous (with this
/// prefix) or of another shape or type, and 81 when a value is not finite.
void load_tensors(const Parameters& parameters, at::Tensor flat, const TensorFile& file, const std::string& prefix,
                  const std::string& where);

}  // namespace polysketch
