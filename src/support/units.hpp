// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace polysketch {

/// `10k`, `1Mi`, `2.5M`, `3_000`, `1e6`: decimal suffixes k M G T, binary Ki Mi Gi Ti. The whole
/// text must be a whole number that fits in 63 bits and is not negative; leading zeros (`010`),
/// signs and blanks are refused. Nothing on failure.
std::optional<int64_t> parse_count(std::string_view text);

/// A real number; the whole text is consumed, not NaN, not infinite. `1e-4`, `7e-4`, `.5`. Nothing
/// on failure.
std::optional<double> parse_real(std::string_view text);

/// `90s`, `30min`, `2h`, `1d`, `250ms`, `10us`; in seconds. Nothing on failure.
std::optional<double> parse_duration(std::string_view text);

/// What a link carries: `400Gb` or `400Gb/s` (bits a second), `900GB`, `3.35TB/s`, `64GiB` (bytes a
/// second), with a prefix k M G T or Ki Mi Gi Ti or none; in bytes a second, above zero. Nothing on
/// failure.
std::optional<double> parse_bandwidth(std::string_view text);

std::string format_count(int64_t value);      ///< 1234567 -> "1.23M"
std::string format_bytes(int64_t bytes);      ///< 1610612736 -> "1.50 GiB"
std::string format_duration(double seconds);  ///< 3723 -> "1:02:03"; 90061 -> "1d 1:01:01"

std::string format_bandwidth(double bytes_per_second);  ///< 5e10 -> "50.0 GB/s"
std::string format_moment(
    double seconds);  ///< 0.0123 -> "12.3 ms", for what is shorter than a minute

}  // namespace polysketch
