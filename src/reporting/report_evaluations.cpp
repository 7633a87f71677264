// SPDX-License-Identifier: Apache-2.0
#include "reporting/report_evaluations.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <map>
#include <set>

#include "reporting/number_text.hpp"
#include "reporting/report_table.hpp"
#include "reporting/svg_plot.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

using nlohmann::ordered_json;

std::string words(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

/// Names of figures as readers know them; others are their keys with blanks.
std::string heading(const std::string& key) {
  static const std::map<std::string, std::string> known{{"nats_per_token", "nats/token"},
                                                        {"bits_per_byte", "bits/byte"},
                                                        {"perplexity_per_word", "perplexity/word"}};
  const auto found = known.find(key);
  return found != known.end() ? found->second : words(key);
}

bool is_share(const std::string& key, const ordered_json& figures) {
  return key.find("accuracy") != std::string::npos ||
         (key.find("interval") != std::string::npos && figures.contains("accuracy"));
}

std::string number_text(const std::string& key, double value, bool share) {
  if (share) return fmt::format("{:.2f} %", 100 * value);
  if (key == "nats_per_token" || key == "bits_per_byte") return fmt::format("{:.4f}", value);
  return short_number(value);
}

/// Any value of a row as text: numbers as their key asks, two numbers as a range.
std::string text_of(const std::string& key, const ordered_json& value, bool share = false) {
  if (value.is_null()) return {};
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer() && !share) return group_digits(value.get<int64_t>());
  if (value.is_number()) return number_text(key, value.get<double>(), share);
  const auto number = [](const ordered_json& item) { return item.is_number(); };
  if (value.is_array() && value.size() == 2 && std::all_of(value.begin(), value.end(), number))
    return text_of(key, value[0], share) + " to " + text_of(key, value[1], share);
  if (value.is_array()) {
    std::string joined;
    for (const ordered_json& item : value)
      joined += (joined.empty() ? "" : ", ") + text_of(key, item, share);
    return joined;
  }
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string figure_text(const ordered_json& figures, const std::string& key) {
  const auto found = figures.find(key);
  return found == figures.end() ? std::string() : text_of(key, *found, is_share(key, figures));
}

/// Equal for what can be compared. Whole texts are the same text for every tokenizer; the first so
/// many tokens of one are not.
std::string kind_of(const EvaluationRecord& record) {
  nlohmann::json measured = record.measured;
  if (!measured.contains("first_tokens")) measured.erase("tokenizer");
  return record.task + " " +
         measured.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string moment(double seconds) {
  if (!(seconds > 0) || seconds > 2e11) return {};
  return fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

bool newer(const EvaluationRecord* a, const EvaluationRecord* b) { return a->time > b->time; }

/// Newest first; of one measurement of one checkpoint only the newest.
std::vector<const EvaluationRecord*> without_repetitions(const RunHistory& run) {
  std::vector<const EvaluationRecord*> all;
  for (auto record = run.evaluations.rbegin(); record != run.evaluations.rend(); ++record)
    all.push_back(&*record);
  std::stable_sort(all.begin(), all.end(), newer);
  std::set<std::string> seen;
  std::erase_if(all, [&](const EvaluationRecord* record) {
    return !seen.insert(fmt::format("{} {} {}", kind_of(*record), record->step, record->checkpoint))
                .second;
  });
  return all;
}

/// Keys of the figures of all records, in the order of the record that has most of them.
std::vector<std::string> figure_keys(std::vector<const EvaluationRecord*> records) {
  std::stable_sort(records.begin(), records.end(), [](const auto* a, const auto* b) {
    return a->figures.size() > b->figures.size();
  });
  std::vector<std::string> keys;
  for (const EvaluationRecord* record : records) {
    for (const auto& [key, value] : record->figures.items()) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
  }
  return keys;
}

/// Groups that keep the order in which they first appear.
template <typename Key>
std::vector<std::vector<const EvaluationRecord*>> grouped(
    const std::vector<const EvaluationRecord*>& records, Key key) {
  std::map<std::string, size_t> places;
  std::vector<std::vector<const EvaluationRecord*>> groups;
  for (const EvaluationRecord* record : records) {
    const auto [place, is_new] = places.emplace(key(*record), groups.size());
    if (is_new) groups.emplace_back();
    groups[place->second].push_back(record);
  }
  return groups;
}

/// A table for each task, a row for each record. `runs`: the name of each record's run, where that
/// has to be said.
std::string lists(const std::vector<const EvaluationRecord*>& records,
                  const std::map<const EvaluationRecord*, std::string>& runs = {}) {
  std::string html;
  for (const auto& task :
       grouped(records, [](const EvaluationRecord& record) { return record.task; })) {
    const std::vector<std::string> keys = figure_keys(task);
    std::vector<std::string> headings{words(task.front()->task) + " of"};
    if (!runs.empty()) headings.emplace_back("run");
    headings.emplace_back("step");
    for (const std::string& key : keys) headings.push_back(heading(key));
    headings.emplace_back("measured");
    std::vector<std::vector<std::string>> rows;
    for (const auto& kind : grouped(task, kind_of)) {
      for (const EvaluationRecord* record : kind) {
        auto& row = rows.emplace_back();
        row = {measured_in_words(*record)};
        if (!runs.empty()) row.push_back(runs.at(record));
        row.push_back(group_digits(record->step));
        for (const std::string& key : keys) row.push_back(figure_text(record->figures, key));
        row.push_back(moment(record->time));
      }
    }
    html += plain_table(headings, rows);
  }
  return html;
}

std::string of_one_kind(const std::vector<RunHistory>& runs,
                        const std::vector<const EvaluationRecord*>& newest) {
  std::vector<const EvaluationRecord*> there;
  std::set<std::string> tokenizers;
  for (const EvaluationRecord* record : newest) {
    if (record == nullptr) continue;
    there.push_back(record);
    const auto tokenizer = record->measured.find("tokenizer");
    if (tokenizer != record->measured.end()) tokenizers.insert(text_of("", *tokenizer));
  }
  const std::vector<std::string> keys = figure_keys(there);
  std::vector<TableColumn> columns;
  for (const EvaluationRecord* record : newest) {
    TableColumn& column = columns.emplace_back();
    column.emplace_back("step", record ? group_digits(record->step) : "");
    for (const std::string& key : keys)
      column.emplace_back(heading(key), record ? figure_text(record->figures, key) : "");
    column.emplace_back("measured", record ? moment(record->time) : "");
  }
  const EvaluationRecord& first = *there.front();
  std::string html = fmt::format("<h3>{}: {}</h3>\n", escape_html(words(first.task)),
                                 escape_html(measured_in_words(first))) +
                     run_table(runs, columns, false);
  if (tokenizers.size() > 1)
    html +=
        "<p>The runs have different tokenizers: their figures per token cannot be compared, "
        "those per byte and per word can.</p>\n";
  return html;
}

std::string of_several_runs(const std::vector<RunHistory>& runs) {
  std::vector<const EvaluationRecord*> all;
  std::map<const EvaluationRecord*, std::string> names;
  std::map<std::string, std::vector<const EvaluationRecord*>> newest;  // by kind, of each run
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const EvaluationRecord* record : without_repetitions(runs[i])) {
      auto& kind = newest[kind_of(*record)];
      kind.resize(runs.size());
      if (kind[i] != nullptr) continue;
      kind[i] = record;
      names[record] = runs[i].name;
      all.push_back(record);
    }
  }
  std::stable_sort(all.begin(), all.end(), newer);
  std::string html;
  std::vector<const EvaluationRecord*> lone;  // what only one of the runs has
  for (const auto& kind : grouped(all, kind_of)) {
    if (kind.size() == 1) {
      lone.push_back(kind.front());
    } else {
      html += of_one_kind(runs, newest[kind_of(*kind.front())]);
    }
  }
  if (!lone.empty()) html += "<h3>measured of one run only</h3>\n" + lists(lone, names);
  return html;
}

}  // namespace

std::string measured_in_words(const EvaluationRecord& record) {
  const ordered_json& measured = record.measured;
  const auto value = [&](const char* key) {
    const auto found = measured.find(key);
    return found == measured.end() ? std::string() : text_of(key, *found);
  };
  std::string text = value("corpus");
  if (const std::string split = value("split"); !split.empty())
    text = split + " split" + (text.empty() ? "" : " of " + text);
  if (const auto bytes = measured.find("bytes");
      bytes != measured.end() && bytes->is_number_integer())
    text += fmt::format(" ({})", format_bytes(bytes->get<int64_t>()));
  // Those that the text names already, or that only tell measurements apart.
  const std::set<std::string> quiet{"corpus", "split", "bytes", "documents", "tokenizer"};
  for (const auto& [key, item] : measured.items()) {
    if (quiet.contains(key) ||
        (key == "stride" && item == measured.value("window", item) && measured.contains("window")))
      continue;
    const std::string said = text_of(key, item);
    if (said.empty()) continue;
    const std::string part = key == "window"         ? "windows of " + said
                             : key == "first_tokens" ? "first " + said + " tokens"
                             : key == "changed"      ? "with " + said
                             : item.is_string()      ? said
                                                     : words(key) + " " + said;
    text += (text.empty() ? "" : ", ") + part;
  }
  return text;
}

std::string report_evaluations(const std::vector<RunHistory>& runs) {
  const std::string html =
      runs.size() == 1 ? lists(without_repetitions(runs.front())) : of_several_runs(runs);
  return html.empty() ? html : "<h2>Evaluations</h2>\n" + html;
}

}  // namespace polysketch
