// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace polysketch {

/// An attention mechanism under the short name that the benchmarks use for it.
struct AttentionVariant {
  std::string name;  ///< as it was written: "polysketch:learned-local:64"
  AttentionConfig config;
};

/// What `--kinds` takes, for help and errors.
extern const char* const attention_variant_forms;

/// Names with commas between. Each is a value of attention.kind, and may say more behind colons:
/// `p=2` (degree of polynomial, local_polynomial and polysketch); `learned`, `learned-local`,
/// `random`, `random-local` and then the sketch size (polysketch). What the name does not say comes
/// from `base`. Throws UserError 64 for anything else and for a name that stands twice.
std::vector<AttentionVariant> parse_attention_variants(const std::string& text,
                                                       const AttentionConfig& base);

/// Lengths with commas between (`512,4Ki`), ascending in the result. Throws UserError 64, which
/// names `option`, for anything but different counts from 1 to 2^24.
std::vector<int64_t> parse_lengths(const std::string& text,
                                   const std::string& option = "--lengths");

}  // namespace polysketch
