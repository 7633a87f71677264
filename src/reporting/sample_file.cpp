// SPDX-License-Identifier: Apache-2.0
#include "reporting/sample_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>
#include <utility>

#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

constexpr const char* file_name = "samples.txt";
constexpr std::string_view step_mark = "=== step ";

/// The step of a line that begins a section.
std::optional<int64_t> step_of_line(std::string_view line) {
  if (!line.starts_with(step_mark)) return std::nullopt;
  int64_t step = 0;
  const char* end = line.data() + line.size();
  const auto [at, error] = std::from_chars(line.data() + step_mark.size(), end, step);
  return error == std::errc{} && at == end && step >= 0 ? std::optional(step) : std::nullopt;
}

bool is_title(std::string_view line) {
  const size_t seed = line.rfind(" (seed ");
  return line.starts_with("--- ") && line.ends_with(")") && seed != std::string_view::npos;
}

std::string title_of(const Sample& sample) {
  std::string prompt = sample.prompt.empty() ? "start of a document" : sample.prompt;
  // a title is one line, whatever the prompt holds
  std::replace_if(
      prompt.begin(), prompt.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return fmt::format("--- {} (seed {})", prompt, sample.seed);
}

/// Calls `use` with each line, without its end.
template <typename Use>
void for_each_line(const std::string& text, Use use) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    use(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
  }
}

/// Titles and the lines below them; first what stands above the first title.
std::vector<std::pair<std::string, std::string>> split_section(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> items{{"", ""}};
  for_each_line(text, [&](std::string_view line) {
    if (is_title(line)) {
      items.emplace_back(line, "");
    } else {
      items.back().second += std::string(line) + "\n";
    }
  });
  return items;
}

std::string join(const std::vector<SampleSection>& sections) {
  std::string file;
  for (const SampleSection& section : sections) {
    if (section.step) file += fmt::format("{}{}\n", step_mark, *section.step);
    file += section.text;
  }
  return file;
}

}  // namespace

std::vector<SampleSection> split_samples(const std::string& file) {
  std::vector<SampleSection> sections;
  for_each_line(file, [&](std::string_view line) {
    if (const auto step = step_of_line(line)) {
      sections.push_back({step, {}});
      return;
    }
    if (sections.empty()) sections.emplace_back();
    sections.back().text += std::string(line) + "\n";
  });
  return sections;
}

std::string add_samples(const std::string& file, int64_t step, const std::vector<Sample>& samples) {
  std::vector<SampleSection> sections = split_samples(file);
  auto place = std::find_if(sections.begin(), sections.end(), [&](const SampleSection& section) {
    return section.step && *section.step >= step;
  });
  if (place == sections.end() || *place->step != step) place = sections.insert(place, {step, "\n"});
  auto items = split_section(place->text);
  for (const Sample& sample : samples) {
    const std::string title = title_of(sample);
    const auto same = std::find_if(items.begin(), items.end(),
                                   [&](const auto& item) { return item.first == title; });
    auto& item = same == items.end() ? items.emplace_back(title, "") : *same;
    item.second = sample.text + "\n\n";
  }
  place->text.clear();
  for (const auto& [title, text] : items) place->text += (title.empty() ? "" : title + "\n") + text;
  return join(sections);
}

std::string without_later_samples(const std::string& file, int64_t step) {
  std::vector<SampleSection> sections = split_samples(file);
  std::erase_if(sections,
                [&](const SampleSection& section) { return section.step && *section.step > step; });
  return join(sections);
}

void keep_samples(const fs::path& run, const std::string& file) {
  try {
    write_file_durably(run / file_name, file);
  } catch (const UserError& error) {
    log_warning(fmt::format("{}; the samples are not kept in the run", error.what()));
  }
}

std::optional<std::string> read_samples(const fs::path& run) {
  std::error_code error;
  if (!fs::exists(run / file_name, error)) return std::nullopt;
  return fs::is_regular_file(run / file_name, error)
             ? read_file(run / file_name, uint64_t{16} << 20)
             : std::string();
}

}  // namespace polysketch
