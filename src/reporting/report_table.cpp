// SPDX-License-Identifier: Apache-2.0
#include "reporting/report_table.hpp"

#include <fmt/format.h>

#include <set>

#include "reporting/svg_plot.hpp"

namespace polysketch {
namespace {

std::string heading_row(const std::vector<std::string>& headings) {
  std::string html = "<thead><tr>";
  for (const std::string& heading : headings) html += "<th>" + escape_html(heading) + "</th>";
  return html + "</tr></thead>\n";
}

}  // namespace

std::string run_table(const std::vector<RunHistory>& runs, const std::vector<TableColumn>& columns,
                      bool mark_differences) {
  std::string html = "<div class=\"scroll\"><table>\n";
  if (runs.size() > 1) {
    std::vector<std::string> headings{""};
    for (const RunHistory& run : runs) headings.push_back(run.name);
    html += heading_row(headings);
  }
  html += "<tbody>\n";
  for (size_t row = 0; row < columns[0].size(); ++row) {
    std::set<std::string> values;
    std::string cells;
    for (const TableColumn& column : columns) {
      values.insert(column[row].second);
      cells += "<td>" + escape_html(column[row].second) + "</td>";
    }
    if (values == std::set<std::string>{""}) continue;
    html += fmt::format("<tr{}><th scope=\"row\">{}</th>{}</tr>\n",
                        mark_differences && values.size() > 1 ? " class=\"differs\"" : "",
                        escape_html(columns[0][row].first), cells);
  }
  return html + "</tbody></table></div>\n";
}

std::string plain_table(const std::vector<std::string>& headings,
                        const std::vector<std::vector<std::string>>& rows) {
  std::string html =
      "<div class=\"scroll\"><table class=\"list\">\n" + heading_row(headings) + "<tbody>\n";
  for (const auto& row : rows) {
    html += "<tr>";
    for (const std::string& cell : row) html += "<td>" + escape_html(cell) + "</td>";
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

}  // namespace polysketch
