// SPDX-License-Identifier: Apache-2.0
#include "reporting/plot_axis.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

namespace polysketch {

std::string axis_text(double value) {
  const double magnitude = std::abs(value);
  if (magnitude == 0) return "0";
  if (magnitude < 0.01) {
    // The shortest mantissa that says it: 7e-4, 1.5e-5.
    std::string text = fmt::format("{:.5e}", value);
    const size_t e = text.find('e');
    std::string mantissa = text.substr(0, e);
    while (mantissa.back() == '0') mantissa.pop_back();
    if (mantissa.back() == '.') mantissa.pop_back();
    return mantissa + "e" + std::to_string(std::stoi(text.substr(e + 1)));
  }
  constexpr std::array<const char*, 5> letters{"", "k", "M", "B", "T"};
  size_t letter = 0;
  double scaled = value;
  for (; std::abs(scaled) >= 1000 * (1 - 1e-9) && letter + 1 < letters.size(); ++letter)
    scaled /= 1000;
  return fmt::format("{:.6g}{}", scaled, letters[letter]);
}

PlotAxis::PlotAxis(double low, double high, bool logarithmic, double pixel_low, double pixel_high)
    : low_(low),
      high_(high),
      logarithmic_(logarithmic),
      pixel_low_(pixel_low),
      pixel_high_(pixel_high) {
  if (!std::isfinite(low_) || !std::isfinite(high_)) low_ = 0, high_ = 1;
  if (low_ > high_) std::swap(low_, high_);
  if (low_ <= 0) logarithmic_ = false;
  if (high_ - low_ <= 1e-9 * std::max(std::abs(low_), std::abs(high_)) || high_ == low_) {
    const double room = low_ == 0 ? 1 : 0.1 * std::abs(low_);
    low_ -= room;
    high_ += room;
  }
}

double PlotAxis::pixel(double value) const {
  const double share = logarithmic_ ? std::log(value / low_) / std::log(high_ / low_)
                                    : (value - low_) / (high_ - low_);
  return pixel_low_ + share * (pixel_high_ - pixel_low_);
}

std::vector<PlotAxis::Tick> PlotAxis::ticks(int wanted) const {
  return logarithmic_ ? logarithmic_ticks(wanted) : linear_ticks(wanted);
}

std::vector<PlotAxis::Tick> PlotAxis::linear_ticks(int wanted) const {
  const double rough = (high_ - low_) / std::max(1, wanted);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double ratio = rough / power;
  const double distance = power * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
  std::vector<Tick> found;
  for (double k = std::ceil(low_ / distance - 1e-9); k * distance <= high_ + 1e-9 * distance; ++k)
    found.push_back({k * distance, axis_text(k * distance)});
  return found;
}

std::vector<PlotAxis::Tick> PlotAxis::logarithmic_ticks(int wanted) const {
  const double decades = std::log10(high_ / low_);
  // Within half a decade powers of ten are too far apart for round numbers: what is right for a
  // linear axis is right here.
  if (decades < 0.5) return linear_ticks(wanted);
  std::vector<double> steps{1};
  if (decades * 3 <= wanted + 2) steps = {1, 2, 5};
  if (decades <= 1.2) steps = {1, 1.5, 2, 3, 4, 5, 7};
  const int stride = std::max(1, static_cast<int>(std::ceil(decades / std::max(1, wanted))));
  std::vector<Tick> found;
  const int first = static_cast<int>(std::floor(std::log10(low_)));
  const int last = static_cast<int>(std::ceil(std::log10(high_)));
  for (int exponent = first; exponent <= last; ++exponent) {
    if (steps.size() == 1 && (exponent - first) % stride != 0) continue;
    for (const double step : steps) {
      const double value = step * std::pow(10, exponent);
      if (value >= low_ * (1 - 1e-9) && value <= high_ * (1 + 1e-9))
        found.push_back({value, axis_text(value)});
    }
  }
  return found;
}

}  // namespace polysketch
