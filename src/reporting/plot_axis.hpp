// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace polysketch {

/// One axis of a plot: a range of values, how it is spread over pixels, and its ticks at round
/// numbers.
class PlotAxis {
 public:
  struct Tick {
    double value;
    std::string text;
  };

  /// Covers [low, high], widened to something that can be drawn if they are equal or not finite.
  /// Logarithmic: both are positive, else the axis falls back to a linear one.
  PlotAxis(double low, double high, bool logarithmic, double pixel_low, double pixel_high);

  double pixel(double value) const;
  bool covers(double value) const { return value >= low_ && value <= high_; }
  bool logarithmic() const { return logarithmic_; }
  double low() const { return low_; }
  double high() const { return high_; }
  /// About `wanted` ticks, at 1, 2 or 5 times a power of ten.
  std::vector<Tick> ticks(int wanted) const;

 private:
  std::vector<Tick> linear_ticks(int wanted) const;
  std::vector<Tick> logarithmic_ticks(int wanted) const;
  double low_, high_;
  bool logarithmic_;
  double pixel_low_, pixel_high_;
};

/// 0.0007 -> "7e-4", 1500000 -> "1.5M", 3.25 -> "3.25".
std::string axis_text(double value);

}  // namespace polysketch
