// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "reporting/svg_plot.hpp"

namespace polysketch {

/// The plot as a file of its own: white ground, title, a legend of the series' labels beside it,
/// the lines of `note` below. Colours stand in it as numbers, since programs other than browsers do
/// not know variables. Empty if nothing can be drawn.
std::string svg_file(const Plot& plot, const std::string& note);

}  // namespace polysketch
