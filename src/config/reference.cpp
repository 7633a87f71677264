// SPDX-License-Identifier: Apache-2.0
// The list of keys as a JSON schema and as a page for people.
#include <fmt/format.h>

#include <algorithm>

#include "config/keys.hpp"
#include "config/load.hpp"

namespace polysketch {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* count_pattern =
    "^(0|[1-9](_?[0-9])*)(\\.[0-9](_?[0-9])*)?(k|M|G|T|Ki|Mi|Gi|Ti|[eE]\\+?[0-9]+)?$";

Json count_schema(const Field& field) {
  Json integer = {{"type", "integer"}, {"minimum", field.least}};
  if (field.most != std::numeric_limits<int64_t>::max()) integer["maximum"] = field.most;
  if (field.even) integer["multipleOf"] = 2;
  Json ways = Json::array({integer, {{"type", "string"}, {"pattern", count_pattern}}});
  for (const auto& word : field.words) ways.push_back({{"const", word.first}});
  return {{"anyOf", ways}};
}

Json real_schema(const Field& field) {
  Json schema = {{"type", "number"}, {field.low_open ? "exclusiveMinimum" : "minimum", field.low}};
  if (field.high != std::numeric_limits<double>::infinity())
    schema[field.high_open ? "exclusiveMaximum" : "maximum"] = field.high;
  return schema;
}

Json field_schema(const Field& field, const Json& default_value) {
  Json schema;
  switch (field.slot.index()) {
    case 0:
      schema = count_schema(field);
      break;
    case 1:
      schema = real_schema(field);
      break;
    case 2:
      schema = {{"type", "boolean"}};
      break;
    case 3:
      schema = {{"type", "string"}};
      if (!field.pattern.empty()) schema["pattern"] = "^(" + field.pattern + ")$|\\$\\{";
      break;
    default:
      schema = {{"enum", std::get<ChoiceSlot>(field.slot).names}};
  }
  Json result = {{"description", field.meaning}};
  result.update(schema);
  result["default"] = default_value;
  return result;
}

Json object_schema(const std::string& description) {
  return {{"description", description},
          {"type", "object"},
          {"properties", Json::object()},
          {"additionalProperties", false}};
}

std::string cell(std::string text) {
  for (size_t at = text.find('|'); at != std::string::npos; at = text.find('|', at + 2))
    text.replace(at, 1, "\\|");
  return text;
}

constexpr const char* introduction = R"(# Configuration

A configuration is a YAML file. `polysketch config check FILE` says whether it is right, `polysketch config show FILE` prints every value with the
place it came from. This page is what `polysketch config reference` prints, and `configs/schema.json`, for editors, what `polysketch config schema`
prints.

* **Layers.** `base: other.yaml` names a file, relative to this one, that is read first; a later value wins. Overrides come last:
  `--set training.steps=1k --set attention.kind=polynomial`.
* **Counts** may be written `10k`, `2.5M`, `1Mi` (2^20), `3_000` or `1e6`. Suffixes: k M G T, powers of 1000; Ki Mi Gi Ti, powers of 1024.
* **Text** may hold `${section.key}`, which stands for the value of that key.
* **Strict.** Unknown, repeated, ill-typed and out-of-range keys are all reported at once, as
  `file:line:col: key: got X, want Y; did you mean 'Z'?`, with exit code 78. Anchors, aliases, merge keys, several documents and files
  above 1 MiB are refused.
* **Rules between keys.** `model.heads` divides `model.width` into heads of even width. `training.batch_tokens` is a multiple of `data.context`;
  `training.micro_batch_tokens`, where given, too, and it divides `training.batch_tokens`. `schedule.warmup` is at most `training.steps`.

| `model.size` | layers | width | heads | hidden |
| --- | --- | --- | --- | --- |
)";

}  // namespace

Json config_schema() {
  Config config;
  const Json defaults = to_json(config);
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                 {"title", "polysketch configuration"}};
  schema.update(object_schema("Every key of a configuration file; all are optional."));
  schema["properties"]["base"] = {
      {"description", "A configuration read before this one, relative to this file."},
      {"type", "string"},
      {"minLength", 1}};
  for (const auto& field : list_fields(config)) {
    Json* place = &schema;
    const Json* default_value = &defaults;
    size_t start = 0;
    for (size_t dot = field.path.find('.'); dot != std::string::npos;
         dot = field.path.find('.', start)) {
      const std::string name = field.path.substr(start, dot - start);
      place = &(*place)["properties"][name];
      if (place->is_null()) *place = object_schema(section_meaning(field.path.substr(0, dot)));
      default_value = &(*default_value)[name];
      start = dot + 1;
    }
    const std::string name = field.path.substr(start);
    (*place)["properties"][name] = field_schema(field, (*default_value)[name]);
  }
  return schema;
}

std::string config_reference() {
  std::string page = introduction;
  for (const std::string size : {"small", "medium", "large"}) {
    const ModelConfig model = load_config("", {"model.size=" + size}).model;
    page += fmt::format("| {} | {} | {} | {} | {} |\n", size, model.layers, model.width,
                        model.heads, model.hidden);
  }
  Config config;
  std::string section;
  for (const auto& field : list_fields(config)) {
    const std::string top = field.path.substr(0, field.path.find('.'));
    if (top != section) {
      page += fmt::format(
          "\n## {}\n\n{}\n\n| key | type | default | range | meaning |\n| --- | --- | --- | --- | "
          "--- |\n",
          top, section_meaning(top));
      section = top;
    }
    const std::string value = field.text().empty() ? "" : "`" + field.text() + "`";
    const std::string type =
        field.unit.empty() ? field.type() : fmt::format("{} ({})", field.type(), field.unit);
    page += fmt::format("| `{}` | {} | {} | {} | {} |\n", field.path, cell(type), cell(value),
                        cell(field.range()), cell(field.meaning));
  }
  return page;
}

}  // namespace polysketch
