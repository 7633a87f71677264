// SPDX-License-Identifier: Apache-2.0
// The list of keys as a JSON schema and as a page for people.
#include <fmt/format.h>

#include <algorithm>

#include "config/keys.hpp"
#include "config/load.hpp"
#include "support/error.hpp"

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

A configuration is a YAML file:

```yaml
# yaml-language-server: $schema=configs/schema.json
base: configs/recipe.yaml      # read first; a later value wins
run: {name: my-run}            # its folder is runs/my-run
model: {size: small}
attention: {kind: polynomial, degree: 4}
data:
  corpus: text
  root: my
  context: 1Ki
  tokenizer: {path: my/tokenizer.model}
training: {batch_tokens: 64Ki, steps: 10k}
schedule: {peak: 7.0e-4, warmup: 500}
```

```
polysketch config check FILE             # every mistake; whether data and tokenizer are there and fit
polysketch config check --no-data FILE   # the file alone
polysketch config show FILE              # every key with the place its value came from
polysketch config show --changed FILE    # only what differs from the defaults
```

This page is what `polysketch config reference` prints.

* **Layers.** `base: other.yaml` names a file, relative to this one, that is read first; a later value wins. Overrides
  come last: `--set training.steps=1k --set attention.kind=polynomial`.
* **Counts** may be written `10k`, `2.5M`, `1Mi` (2^20), `3_000` or `1e6`. Suffixes: k M G T, powers of 1000; Ki Mi Gi
  Ti, powers of 1024.
* **Real numbers** with an exponent are best written with a point, `7.0e-4`: the YAML 1.1 of many libraries, Python's
  among them, takes `7e-4` for text. This program reads both.
* **Text** may hold `${section.key}`, which stands for the value of that key.
* **Strict.** Unknown, repeated, ill-typed and out-of-range keys are all reported at once, as
  `file:line:col: key: got X, want Y; did you mean 'Z'?`, with exit code 78. Keys as other trainers call them
  (`learning_rate`, `batch_size`, `n_layer`) are answered with their name here. Anchors, aliases, merge keys, several
  documents and files above 1 MiB are refused.
* **Rules between keys.** `model.heads` divides `model.width` into heads of even width. `training.batch_tokens` is a
  multiple of `data.context`; `training.micro_batch_tokens`, where given, too, and it divides `training.batch_tokens`.
  `schedule.warmup` is at most `training.steps`.
* **On resume.** `free` keys may have another value when a run continues from its checkpoint; `asks` ones only with
  `--allow-config-change`; `fixed` ones never, since the model or the tokens would be others. `training.steps` is free
  while the learning rate so far stays what it was (docs/training.md).
* **Editors.** `configs/schema.json` is a JSON schema, which `polysketch config schema` prints. Editors with the YAML
  language server complete and check keys in a file with the line `# yaml-language-server: $schema=PATH`, where the path
  counts from the file; those in `configs/` have it.

| `model.size` | layers | width | heads | hidden |
| --- | --- | --- | --- | --- |
)";

/// A few keys of a section as one writes them.
std::string section_example(std::string_view section) {
  if (section == "run") return "run: {name: pg19-small-seed-2, seed: 2}";
  if (section == "model")
    return "model: {size: small, layers: 13}   # a layer more than the size says";
  if (section == "attention")
    return "attention: {kind: polysketch, sketch: learned, sketch_size: 32, local: exact, block: "
           "1024}";
  if (section == "data")
    return "data:\n  corpus: pg19\n  root: /data/pg19\n  context: 8Ki\n  tokenizer: {path: "
           "runs/tokenizers/pg19-32k.model}\n  shuffle: {files: 32}";
  if (section == "training")
    return "training: {batch_tokens: 1Mi, steps: 125k, precision: bf16, device: auto}";
  if (section == "optimizer")
    return "optimizer: {beta1: 0.9, beta2: 0.95, weight_decay: 0.1, clip: 1.0}";
  if (section == "schedule")
    return "schedule: {kind: warmup_stable_decay, peak: 7.0e-4, warmup: 2k, decay_fraction: 0.2}";
  if (section == "evaluation") return "evaluation: {every: 1k, split: validation, tokens: 1Mi}";
  if (section == "checkpoint")
    return "checkpoint: {every: 1k, minutes: 30, keep_last: 3, keep_every: 25k}";
  if (section == "logging") return "logging: {every: 10, diagnostics: 1k, tensorboard: true}";
  if (section == "distributed")
    return "distributed: {address: 10.0.0.7, shard_optimizer: true, bind_cpus: true}";
  throw InternalError("a configuration section has no example");
}

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
          "\n## {}\n\n{}\n\n```yaml\n{}\n```\n\n| key | type | default | range | on resume | "
          "meaning |\n"
          "| --- | --- | --- | --- | --- | --- |\n",
          top, section_meaning(top), section_example(top));
      section = top;
    }
    const std::string value = field.text().empty() ? "" : "`" + field.text() + "`";
    const std::string type =
        field.unit.empty() ? field.type() : fmt::format("{} ({})", field.type(), field.unit);
    page += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", field.path, cell(type), cell(value),
                        cell(field.range()), effect_name(field.effect), cell(field.meaning));
  }
  return page;
}

}  // namespace polysketch
