// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "data/byte_source.hpp"
#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace {

class GzipSource final : public ByteSource {
 public:
  GzipSource(std::unique_ptr<ByteSource> compressed, std::string name, OnError policy)
      : compressed_(std::move(compressed)),
        name_(std::move(name)),
        policy_(policy),
        buffer_(size_t{1} << 17) {
    constexpr int kGzipOnly = 15 + 16;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) throw InternalError("inflateInit2 failed");
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  size_t read(void* data, size_t size) override {
    stream_.next_out = static_cast<Bytef*>(data);
    const auto wanted = static_cast<uInt>(std::min<size_t>(size, 1U << 30));
    stream_.avail_out = wanted;
    while (stream_.avail_out == wanted && !finished_) {
      if (stream_.avail_in == 0) fill();
      if (stream_.avail_in == 0) {
        if (in_member_ || position_ == 0)
          fail("the gzip stream is truncated: download the file again");
        finished_ = true;
        break;
      }
      if (!in_member_ && !begin_member()) continue;
      inflate_some();
    }
    return wanted - stream_.avail_out;
  }

 private:
  [[noreturn]] void fail(const std::string& cause) const {
    throw UserError(ExitCode::bad_data, fmt::format("{}: compressed byte {}: {}", name_,
                                                    position_ - stream_.avail_in, cause));
  }

  void fill() {
    const size_t got = compressed_->read(buffer_.data(), buffer_.size());
    stream_.next_in = buffer_.data();
    stream_.avail_in = static_cast<uInt>(got);
    position_ += got;
  }

  /// Between members: true when another one begins here; false when padding was passed over, or
  /// when what follows is to be ignored.
  bool begin_member() {
    if (members_ == 0 && *stream_.next_in != kMagic)
      fail("not gzip: rename the file, or download it again");
    while (stream_.avail_in > 0 && *stream_.next_in == 0) {
      ++stream_.next_in;
      --stream_.avail_in;
    }
    if (stream_.avail_in == 0) return false;
    if (*stream_.next_in != kMagic) {
      const std::string where = "bytes after the end of the gzip stream";
      if (policy_ == OnError::error)
        fail(where + " are not gzip: download the file again, or set data.on_error: skip");
      log_warning(fmt::format("{}: compressed byte {}: {} are ignored", name_,
                              position_ - stream_.avail_in, where));
      finished_ = true;
      return false;
    }
    if (members_ > 0) inflateReset(&stream_);
    in_member_ = true;
    return true;
  }

  void inflate_some() {
    const int status = inflate(&stream_, Z_NO_FLUSH);
    if (status == Z_STREAM_END) {
      in_member_ = false;
      ++members_;
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      fail(fmt::format("the gzip stream is damaged ({}): download the file again",
                       stream_.msg ? stream_.msg : "unknown error"));
    }
  }

  static constexpr Bytef kMagic = 0x1f;  // first byte of a member

  std::unique_ptr<ByteSource> compressed_;
  std::string name_;
  OnError policy_;
  std::vector<Bytef> buffer_;
  z_stream stream_{};
  uint64_t position_ = 0;  // compressed bytes fetched
  int64_t members_ = 0;    // complete ones
  bool in_member_ = false;
  bool finished_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> gunzip(std::unique_ptr<ByteSource> compressed, const std::string& name,
                                   OnError policy) {
  return std::make_unique<GzipSource>(std::move(compressed), name, policy);
}

std::string_view BufferedBytes::head(size_t size) {
  if (end_ - begin_ < size) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    while (end_ < size) {
      const size_t got = source_->read(buffer_.data() + end_, buffer_.size() - end_);
      if (got == 0) break;
      end_ += got;
    }
  }
  return std::string_view(buffer_).substr(begin_, std::min(size, end_ - begin_));
}

size_t BufferedBytes::read(char* data, size_t size) {
  size_t done = 0;
  while (done < size) {
    const std::string_view at_hand = peek();
    if (at_hand.empty()) break;
    const size_t part = std::min(at_hand.size(), size - done);
    std::memcpy(data + done, at_hand.data(), part);
    consume(part);
    done += part;
  }
  return done;
}

uint64_t BufferedBytes::skip(uint64_t size) {
  uint64_t done = 0;
  while (done < size) {
    const std::string_view at_hand = peek();
    if (at_hand.empty()) break;
    const auto part = std::min<uint64_t>(at_hand.size(), size - done);
    consume(part);
    done += part;
  }
  return done;
}

}  // namespace polysketch
