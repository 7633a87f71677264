// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "model/attention_probe.hpp"
#include "model/transformer.hpp"

namespace polysketch {

/// Fields of a `diagnostics` event (docs/formats.md): for each figure that the kind has
/// (weight_figures.hpp) its mean over the layers and the worst of them, then every layer by itself.
/// The parameters are those of the model now. Changes nothing.
nlohmann::ordered_json diagnostics_fields(Transformer& model, const AttentionProbe& probe);

}  // namespace polysketch
