// SPDX-License-Identifier: Apache-2.0
#include "training/diagnostics.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "attention/weight_figures.hpp"

namespace polysketch {
namespace {

struct Column {
  const char* name;
  bool low_is_bad;
  std::vector<double> values;  ///< of the layers that have one
};

/// A NaN is the worst.
double worst_of(const Column& column) {
  double worst = column.values.front();
  for (const double value : column.values) {
    if (std::isnan(worst)) break;
    if (std::isnan(value) || (column.low_is_bad ? value < worst : value > worst)) worst = value;
  }
  return worst;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

}  // namespace

nlohmann::ordered_json diagnostics_fields(Transformer& model, const AttentionProbe& probe) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<Column> columns{{"sketch_error", false, {}},
                              {"smallest_normaliser", true, {}},
                              {"largest_score", false, {}},
                              {"share_outside_block", false, {}},
                              {"effective_rank", true, {}}};
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (size_t i = 0; i < probe.layers().size(); ++i) {
    const AttentionProbe::Layer& seen = probe.layers()[i];
    const WeightFigures f =
        weight_figures(model.attention(static_cast<int64_t>(i))
                           .weights_of_rows(seen.queries, seen.keys, probe.positions()));
    const std::vector<std::optional<double>> values{f.sketch_error, f.smallest_normaliser,
                                                    f.largest_score, f.share_outside_block,
                                                    f.effective_rank};
    nlohmann::ordered_json layer{{"head", seen.head}};
    for (size_t column = 0; column < columns.size(); ++column) {
      if (!values[column]) continue;
      columns[column].values.push_back(*values[column]);
      layer[columns[column].name] = *values[column];
    }
    layers.push_back(std::move(layer));
  }
  nlohmann::ordered_json fields = nlohmann::ordered_json::object();
  for (const Column& column : columns) {
    if (column.values.empty()) continue;
    fields[column.name] = mean_of(column.values);
    fields[std::string(column.name) + "_worst"] = worst_of(column);
  }
  fields["queries"] = probe.positions().size(0);
  fields["keys"] = probe.layers().front().keys.size(2);
  fields["layers"] = std::move(layers);
  fields["seconds"] =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return fields;
}

}  // namespace polysketch
