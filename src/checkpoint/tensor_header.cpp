// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/tensor_header.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include "checkpoint/strict_json.hpp"

namespace polysketch {
namespace {

struct TypeRow {
  DataType type;
  const char* name;
  int64_t bytes;
};
constexpr std::array<TypeRow, 10> types{{{DataType::f64, "F64", 8},
                                         {DataType::f32, "F32", 4},
                                         {DataType::bf16, "BF16", 2},
                                         {DataType::f16, "F16", 2},
                                         {DataType::i64, "I64", 8},
                                         {DataType::i32, "I32", 4},
                                         {DataType::i16, "I16", 2},
                                         {DataType::i8, "I8", 1},
                                         {DataType::u8, "U8", 1},
                                         {DataType::boolean, "BOOL", 1}}};

const TypeRow& row_of(DataType type) {
  return *std::find_if(types.begin(), types.end(),
                       [type](const TypeRow& row) { return row.type == type; });
}

template <typename... Arguments>
[[noreturn]] void refuse(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  throw std::invalid_argument(fmt::format(format, std::forward<Arguments>(arguments)...));
}

constexpr size_t most_dimensions = 64;

/// Takes the parser's events one by one: no document tree, so a large header costs no more than its
/// tensors, and a repeated key, which a tree would hide, is seen.
class HeaderEvents {
 public:
  explicit HeaderEvents(TensorHeader& header) : header_(header) {}

  bool key(std::string& name) {
    switch (place_) {
      case Place::top:
        if (!names_.insert(name).second) refuse("repeats the tensor '{}'", name);
        next_ = name;
        break;
      case Place::metadata:
        if (header_.metadata.count(name) > 0) refuse("repeats the metadata key '{}'", name);
        next_ = name;
        break;
      default:
        begin_field(name);
    }
    return true;
  }

  bool start_object(size_t) {
    if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ == Place::top && next_ == "__metadata__") {
      place_ = Place::metadata;
    } else if (place_ == Place::top) {
      place_ = Place::tensor;
      current_ = TensorInfo{};
      current_.name = next_;
      has_type_ = has_shape_ = has_offsets_ = false;
    } else {
      misplaced("an object");
    }
    return true;
  }

  bool end_object() {
    if (place_ == Place::tensor) finish_tensor();
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }

  bool start_array(size_t) {
    if (place_ != Place::shape_key && place_ != Place::offsets_key) misplaced("a list");
    place_ = place_ == Place::shape_key ? Place::shape : Place::offsets;
    return true;
  }

  bool end_array() {
    if (place_ == Place::offsets && offsets_.size() != 2)
      refuse("tensor '{}': data_offsets has {} entries, want 2", current_.name, offsets_.size());
    place_ = Place::tensor;
    return true;
  }

  bool number_unsigned(uint64_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      refuse("tensor '{}': {} is too large", current_.name, value);
    if (place_ == Place::shape) {
      if (current_.shape.size() == most_dimensions)
        refuse("tensor '{}': more than {} dimensions", current_.name, most_dimensions);
      current_.shape.push_back(static_cast<int64_t>(value));
    } else if (place_ == Place::offsets) {
      if (offsets_.size() == 2)
        refuse("tensor '{}': data_offsets has more than 2 entries", current_.name);
      offsets_.push_back(value);
    } else {
      misplaced("a number");
    }
    return true;
  }

  bool string(std::string& value) {
    if (place_ == Place::metadata) {
      header_.metadata.emplace(next_, value);
    } else if (place_ == Place::type_key) {
      const auto found = std::find_if(types.begin(), types.end(),
                                      [&](const TypeRow& row) { return value == row.name; });
      if (found == types.end()) refuse("tensor '{}': unknown dtype '{}'", current_.name, value);
      current_.type = found->type;
      place_ = Place::tensor;
    } else {
      misplaced("a text");
    }
    return true;
  }

  bool null() { misplaced("null"); }
  bool boolean(bool) { misplaced("true or false"); }
  bool number_integer(int64_t) { misplaced("a negative number"); }
  bool number_float(double, const std::string& text) { misplaced("the number " + text); }
  bool binary(std::vector<uint8_t>&) { misplaced("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    refuse("header is not valid JSON at its byte {}", position);
  }

 private:
  enum class Place {
    outside,
    top,
    metadata,
    tensor,
    type_key,
    shape_key,
    offsets_key,
    shape,
    offsets
  };

  [[noreturn]] void misplaced(const std::string& what) const {
    refuse("header has {} in a wrong place (at '{}')", what,
           place_ == Place::top || place_ == Place::metadata ? next_ : current_.name);
  }

  void begin_field(const std::string& name) {
    bool* seen = nullptr;
    if (name == "dtype") {
      place_ = Place::type_key;
      seen = &has_type_;
    } else if (name == "shape") {
      place_ = Place::shape_key;
      seen = &has_shape_;
    } else if (name == "data_offsets") {
      place_ = Place::offsets_key;
      offsets_.clear();
      seen = &has_offsets_;
    } else {
      refuse("tensor '{}': unknown key '{}'", current_.name, name);
    }
    if (std::exchange(*seen, true))
      refuse("tensor '{}': repeats the key '{}'", current_.name, name);
  }

  void finish_tensor() {
    if (!has_type_ || !has_shape_ || !has_offsets_)
      refuse("tensor '{}': needs dtype, shape and data_offsets", current_.name);
    if (offsets_[1] < offsets_[0])
      refuse("tensor '{}': data_offsets end before they begin", current_.name);
    current_.offset = offsets_[0];
    current_.bytes = offsets_[1] - offsets_[0];
    uint64_t want = 0;
    if (!tensor_bytes(current_.type, current_.shape, want))
      refuse("tensor '{}': the shape's size overflows", current_.name);
    if (want != current_.bytes)
      refuse("tensor '{}': shape needs {} bytes, data_offsets give {}", current_.name, want,
             current_.bytes);
    header_.tensors.push_back(std::move(current_));
  }

  TensorHeader& header_;
  Place place_ = Place::outside;
  std::string next_;
  std::set<std::string> names_;
  TensorInfo current_;
  std::vector<uint64_t> offsets_;
  bool has_type_ = false, has_shape_ = false, has_offsets_ = false;
};

void check_layout(const std::vector<TensorInfo>& tensors, uint64_t data_bytes) {
  uint64_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset < end) refuse("tensor '{}': its bytes overlap those of another", tensor.name);
    if (tensor.offset > end)
      refuse("hole of {} bytes before tensor '{}'", tensor.offset - end, tensor.name);
    end += tensor.bytes;
    if (end > data_bytes)
      refuse("tensor '{}': ends at byte {} of the data, the file has {}", tensor.name, end,
             data_bytes);
  }
  if (end != data_bytes) refuse("{} bytes after the last tensor", data_bytes - end);
}

}  // namespace

int64_t size_of(DataType type) { return row_of(type).bytes; }
const char* safetensors_name(DataType type) { return row_of(type).name; }

bool tensor_bytes(DataType type, const std::vector<int64_t>& shape, uint64_t& bytes) {
  int64_t product = size_of(type);
  for (const int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(product, extent, &product)) return false;
  }
  bytes = static_cast<uint64_t>(product);
  return true;
}

TensorHeader parse_tensor_header(std::string_view text, uint64_t data_bytes) {
  if (const std::string defect = json_object_defect(text, " "); !defect.empty())
    refuse("header {}", defect);
  TensorHeader header;
  HeaderEvents events(header);
  if (!nlohmann::json::sax_parse(text, &events)) refuse("header is not valid JSON");
  // Empty tensors sort before the one that begins where they lie, so that contiguity can be checked
  // in one pass.
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) {
                     return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
                   });
  check_layout(header.tensors, data_bytes);
  return header;
}

}  // namespace polysketch
