// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "reporting/append_file.hpp"
#include "reporting/metric_sink.hpp"
#include "support/build_info.hpp"
#include "support/hash.hpp"

namespace polysketch {
namespace {

// The few messages of TensorBoard's event.proto and summary.proto that scalars need, written by
// hand: a field is a key (number << 3 | wire type) and a value.
enum class Wire : uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_key(std::string& out, uint32_t field, Wire wire) {
  put_varint(out, field << 3 | static_cast<uint32_t>(wire));
}

template <typename Integer>
void put_little_endian(std::string& out, Integer value) {
  for (size_t i = 0; i < sizeof(value); ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  put_key(out, field, Wire::bytes);
  put_varint(out, bytes.size());
  out += bytes;
}

/// Event: 1 wall_time (double), 2 step (int64), then one of 3 file_version (text), 5 summary, 7
/// session_log.
std::string event(int64_t step) {
  std::string out;
  put_key(out, 1, Wire::fixed64);
  put_little_endian(
      out, std::bit_cast<uint64_t>(
               std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
                   .count()));
  put_key(out, 2, Wire::varint);
  put_varint(out, static_cast<uint64_t>(step));
  return out;
}

/// Summary.Value: 1 tag (text), 2 simple_value (float).
std::string scalar(const std::string& tag, double number) {
  std::string out;
  put_bytes(out, 1, tag);
  put_key(out, 2, Wire::fixed32);
  put_little_endian(out, std::bit_cast<uint32_t>(static_cast<float>(number)));
  return out;
}

/// TFRecord framing: length, its checksum, content, its checksum.
std::string framed(const std::string& content) {
  std::string out;
  put_little_endian(out, static_cast<uint64_t>(content.size()));
  put_little_endian(out, masked_crc32c(out.data(), out.size()));
  out += content;
  put_little_endian(out, masked_crc32c(content.data(), content.size()));
  return out;
}

std::string event_file_name() {
  static std::atomic<int> count{0};
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(
                           std::chrono::system_clock::now().time_since_epoch())
                           .count();
  return fmt::format("events.out.tfevents.{}.{}.{}.{}", seconds, host_name(), ::getpid(), count++);
}

class TensorboardSink : public MetricSink {
 public:
  explicit TensorboardSink(const std::string& directory)
      : file_(directory + "/" + event_file_name(),
              "the TensorBoard event file from here on is missing, the run goes on") {
    std::string first = event(0);
    put_bytes(first, 3, "brain.Event:2");
    file_.append(framed(first));
  }

  void record(const MetricRecord& record) override {
    if (record.event == "start" && record.step > 0) return restart(record.step);
    if (record.event != "step" && record.event != "validation" && record.event != "diagnostics")
      return;
    std::string summary;
    put_scalars(summary, record.event + "/", record.fields);
    if (summary.empty()) return;
    std::string content = event(record.step);
    put_bytes(content, 5, summary);
    file_.append(framed(content));
  }

  void flush() override { file_.sync(); }
  void stay_in(const std::string& run_folder) override {
    file_.stay_in(run_folder + "/tensorboard");
  }

 private:
  static void put_scalars(std::string& summary, const std::string& prefix,
                          const nlohmann::ordered_json& fields) {
    for (const auto& [key, value] : fields.items()) {
      if (value.is_number()) put_bytes(summary, 1, scalar(prefix + key, value.get<double>()));
      if (!value.is_array()) continue;
      for (size_t i = 0; i < value.size(); ++i) {
        if (value[i].is_object())
          put_scalars(summary, fmt::format("{}{}/{:02}/", prefix, key, i), value[i]);
      }
    }
  }

  /// A run that resumes: TensorBoard then hides what earlier files say of the steps from here on.
  /// SessionLog: 1 status, START = 1.
  void restart(int64_t resumed_from) {
    std::string content = event(resumed_from + 1);
    put_bytes(content, 7, std::string("\x08\x01", 2));
    file_.append(framed(content));
  }

  AppendFile file_;
};

}  // namespace

std::unique_ptr<MetricSink> make_tensorboard_sink(const std::string& directory) {
  return std::make_unique<TensorboardSink>(directory);
}

}  // namespace polysketch
