// SPDX-License-Identifier: Apache-2.0
#include "config/yaml_reader.hpp"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

[[noreturn]] void refuse(const std::string& name, int line, int column, const std::string& what) {
  throw UserError(ExitCode::config, fmt::format("{}:{}:{}: {}", name, line, column, what));
}

[[noreturn]] void refuse(const std::string& name, const YAML::Mark& mark, const std::string& what) {
  refuse(name, std::max(mark.line, 0) + 1, std::max(mark.column, 0) + 1, what);
}

// A comment put behind the text. The parser takes the end of the input for a closing quote; then
// this becomes part of the value.
constexpr std::string_view end_mark = "# end of configuration";

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const std::string& name, YamlNode& root) : name_(name), root_(root) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1)
      refuse(name_, mark, "a second document begins; want exactly one (remove the line '---')");
  }
  void OnDocumentEnd() override {}

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(name_, mark, "got an alias (*name), want the value itself");
  }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(mark, anchor, YamlNode::Kind::null);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(mark, tag);
    YamlNode& node = add(mark, anchor, YamlNode::Kind::scalar);
    if (value.find(end_mark) != std::string::npos)
      refuse(name_, mark, "not YAML: a quote is opened here and never closed");
    node.text = value;
    node.plain = tag != "!" && tag != "tag:yaml.org,2002:str";
    const bool is_key = !open_.empty() && open_.back()->kind == YamlNode::Kind::map &&
                        open_.back()->children.size() % 2 == 1;
    if (is_key && node.plain && value == "<<")
      refuse(name_, mark, "got a merge key (<<), want the keys themselves, or 'base: other.yaml'");
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open(mark, add(mark, anchor, YamlNode::Kind::list));
  }
  void OnSequenceEnd() override { open_.pop_back(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open(mark, add(mark, anchor, YamlNode::Kind::map));
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  YamlNode& add(const YAML::Mark& mark, YAML::anchor_t anchor, YamlNode::Kind kind) {
    if (anchor != YAML::NullAnchor) refuse(name_, mark, "got an anchor (&name), want plain values");
    if (++nodes_ > yaml_max_nodes)
      refuse(name_, mark,
             fmt::format("more than {} values; this is no configuration", yaml_max_nodes));
    YamlNode node;
    node.kind = kind;
    node.line = std::max(mark.line, 0) + 1;
    node.column = std::max(mark.column, 0) + 1;
    if (open_.empty()) {
      root_ = std::move(node);
      return root_;
    }
    open_.back()->children.push_back(std::move(node));
    return open_.back()->children.back();
  }

  // The pointer stays good: a parent's children do not grow while the last of them is open.
  void open(const YAML::Mark& mark, YamlNode& node) {
    if (open_.size() >= static_cast<size_t>(yaml_max_depth)) {
      refuse(
          name_, mark,
          fmt::format("nested more than {} levels deep; this is no configuration", yaml_max_depth));
    }
    open_.push_back(&node);
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    constexpr std::string_view core = "tag:yaml.org,2002:";
    constexpr std::array<std::string_view, 7> names = {"str",  "int", "float", "bool",
                                                       "null", "map", "seq"};
    if (tag.empty() || tag == "?" || tag == "!") return;
    if (tag.starts_with(core) &&
        std::find(names.begin(), names.end(), tag.substr(core.size())) != names.end())
      return;
    refuse(name_, mark, "got a tag (!name), want plain values");
  }

  const std::string& name_;
  YamlNode& root_;
  std::vector<YamlNode*> open_;
  int nodes_ = 0;
  int documents_ = 0;
};

int line_of(std::string_view text, size_t offset) {
  return static_cast<int>(
             std::count(text.begin(), text.begin() + static_cast<long>(offset), '\n')) +
         1;
}

void check_bytes(std::string_view text, const std::string& name) {
  if (text.size() > yaml_max_bytes)
    refuse(name, 1, 1,
           fmt::format("larger than {} bytes; this is no configuration", yaml_max_bytes));
  if (const std::string other = foreign_encoding(text); !other.empty()) refuse(name, 1, 1, other);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f) {
      refuse(name, line_of(text, i), 1,
             fmt::format("control character 0x{:02x} at byte {}: a binary file? want YAML text", c,
                         i));
    }
  }
  // The parser looks ahead over a whole run of these before it reports the first: a megabyte of
  // them would take 200 MiB.
  if (std::count_if(text.begin(), text.end(),
                    [](char c) { return c == '[' || c == '{' || c == ','; }) > yaml_max_nodes) {
    refuse(name, 1, 1,
           fmt::format("more than {} brackets, braces and commas; this is no configuration",
                       yaml_max_nodes));
  }
  if (const auto offset = invalid_utf8_at(text)) {
    refuse(name, line_of(text, *offset), 1,
           fmt::format("byte {} is not UTF-8; save the file as UTF-8", *offset));
  }
}

}  // namespace

YamlNode parse_yaml(std::string_view text, const std::string& name) {
  check_bytes(text, name);
  YamlNode root;
  TreeBuilder builder(name, root);
  try {
    std::istringstream stream{std::string(text) + "\n" + std::string(end_mark) + "\n"};
    YAML::Parser parser(stream);
    const bool found = parser.HandleNextDocument(builder);
    if (!found || root.kind == YamlNode::Kind::null)
      refuse(name, 1, 1, "the file is empty; want keys, for example 'model: {size: small}'");
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    refuse(name, error.mark, "not YAML: " + error.msg);
  }
  return root;
}

}  // namespace polysketch
