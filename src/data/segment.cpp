// SPDX-License-Identifier: Apache-2.0
#include "data/segment.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/system_error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

static_assert(std::endian::native == std::endian::little, "segment files are mapped as they are");

constexpr std::array<char, 8> kMagic = {'P', 'S', 'K', 'T', 'O', 'K', 'S', '\0'};
constexpr uint32_t kVersion = 1;
// far above any segment; keeps the size arithmetic from overflowing
constexpr uint64_t kMostTokens = uint64_t{1} << 40;

struct Header {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t id_bytes;
  uint64_t source;
  int64_t number;
  SegmentCounts counts;
  uint32_t last;
  uint32_t body_crc;
  std::array<uint8_t, 36> unused;
  uint32_t header_crc;
};
static_assert(sizeof(Header) == 128 && offsetof(Header, header_crc) == 124);

uint32_t header_crc(const Header& header) { return crc32c(&header, offsetof(Header, header_crc)); }

uint64_t file_bytes(const Header& header) {
  return sizeof(Header) + static_cast<uint64_t>(header.counts.documents) * sizeof(SegmentDocument) +
         static_cast<uint64_t>(header.counts.tokens) * header.id_bytes;
}

/// Why the header cannot be used, or null.
const char* header_fault(const Header& header, const SegmentIdentity& identity, uint64_t size) {
  if (header.magic != kMagic) return "not a segment file";
  if (header.header_crc != header_crc(header)) return "CRC of the header differs";
  if (header.version != kVersion) return "other format version";
  if (header.source != identity.source || header.number != identity.number)
    return "belongs to another segment";
  if (header.id_bytes != 2 && header.id_bytes != 4) return "ids of odd width";
  const auto tokens = static_cast<uint64_t>(header.counts.tokens),
             documents = static_cast<uint64_t>(header.counts.documents);
  if (tokens > kMostTokens || documents > tokens) return "impossible counts";
  if (file_bytes(header) != size) return "wrong size";
  return nullptr;
}

[[noreturn]] void throw_unreadable(const std::filesystem::path& path, int error) {
  throw_system_error(path, "read the token cache", error, exit_code_of_reading(error));
}

/// Largest id, so that one comparison covers all (the loop vectorises).
template <typename Id>
uint32_t largest(const Id* ids, int64_t count) {
  Id most = 0;
  for (int64_t i = 0; i < count; ++i) most = std::max(most, ids[i]);
  return most;
}

}  // namespace

SegmentCounts& SegmentCounts::operator+=(const SegmentCounts& other) {
  tokens += other.tokens;
  documents += other.documents;
  bytes += other.bytes;
  words += other.words;
  unknown += other.unknown;
  skipped += other.skipped;
  return *this;
}

void Segment::check(std::string_view content, const SegmentIdentity& identity, int32_t vocabulary) {
  if (content.size() < sizeof(Header)) throw SegmentDamaged("shorter than its header");
  Header header{};
  std::memcpy(&header, content.data(), sizeof header);
  if (const char* fault = header_fault(header, identity, content.size()))
    throw SegmentDamaged(fault);
  if (crc32c(content.data() + sizeof header, content.size() - sizeof header) != header.body_crc) {
    throw SegmentDamaged("CRC of the tokens differs");
  }
  summary_ = {header.counts, header.last != 0};
  const char* documents = content.data() + sizeof header;
  documents_ = {reinterpret_cast<const SegmentDocument*>(documents),
                static_cast<size_t>(header.counts.documents)};
  const char* ids = documents + documents_.size_bytes();
  uint64_t before = 0;
  for (const auto& document : documents_) {
    if (document.end <= before) throw SegmentDamaged("ends of documents do not rise");
    before = document.end;
  }
  if (before != static_cast<uint64_t>(header.counts.tokens))
    throw SegmentDamaged("documents and tokens differ");
  uint32_t most = 0;
  if (header.id_bytes == 2) {
    ids16_ = reinterpret_cast<const uint16_t*>(ids);
    most = largest(ids16_, header.counts.tokens);
  } else {
    ids32_ = reinterpret_cast<const uint32_t*>(ids);
    most = largest(ids32_, header.counts.tokens);
  }
  if (header.counts.tokens > 0 && most >= static_cast<uint32_t>(vocabulary))
    throw SegmentDamaged("an id is outside the vocabulary");
}

std::shared_ptr<const Segment> Segment::map(const std::filesystem::path& path,
                                            const SegmentIdentity& identity, int32_t vocabulary) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_unreadable(path, errno);
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    const int error = errno;
    ::close(fd);
    throw_unreadable(path, error);
  }
  if (status.st_size < static_cast<off_t>(sizeof(Header))) {
    ::close(fd);
    throw SegmentDamaged("shorter than its header");
  }
  std::shared_ptr<Segment> segment(new Segment);
  segment->mapped_bytes_ = static_cast<size_t>(status.st_size);
  void* mapping =
      ::mmap(nullptr, segment->mapped_bytes_, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
  const int error = errno;
  ::close(fd);
  if (mapping == MAP_FAILED) throw_unreadable(path, error);
  segment->mapping_ = mapping;
  segment->check({static_cast<const char*>(mapping), segment->mapped_bytes_}, identity, vocabulary);
  return segment;
}

std::shared_ptr<const Segment> Segment::parse(std::string content, const SegmentIdentity& identity,
                                              int32_t vocabulary) {
  std::shared_ptr<Segment> segment(new Segment);
  segment->memory_ = std::move(content);
  segment->check(segment->memory_, identity, vocabulary);
  return segment;
}

Segment::~Segment() {
  if (mapping_) ::munmap(mapping_, mapped_bytes_);
}

void Segment::copy(int64_t begin, int64_t count, int32_t* out) const {
  require(begin >= 0 && count >= 0 && begin + count <= summary_.counts.tokens,
          "range outside the segment");
  if (ids16_) {
    std::copy_n(ids16_ + begin, count, out);
  } else {
    std::transform(ids32_ + begin, ids32_ + begin + count, out,
                   [](uint32_t id) { return static_cast<int32_t>(id); });
  }
}

std::optional<SegmentSummary> read_segment_summary(const std::filesystem::path& path,
                                                   const SegmentIdentity& identity) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  Header header{};
  struct stat status {};
  const bool whole = ::fstat(fd, &status) == 0 &&
                     ::pread(fd, &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header);
  ::close(fd);
  if (!whole || header_fault(header, identity, static_cast<uint64_t>(status.st_size)))
    return std::nullopt;
  return SegmentSummary{header.counts, header.last != 0};
}

SegmentBuilder::SegmentBuilder(int32_t vocabulary) : vocabulary_(vocabulary) {}

void SegmentBuilder::add(std::string_view text, std::span<const int32_t> ids, int32_t unknown) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocabulary_) {
      throw UserError(
          ExitCode::bad_data,
          fmt::format(
              "tokenizer gave the id {} but has only {} pieces: its model file is not usable", id,
              vocabulary_));
    }
    counts_.unknown += id == unknown;
  }
  if (text.size() > UINT32_MAX)
    throw UserError(ExitCode::bad_data,
                    "a document has more than 4 GiB: lower data.max_document_bytes");
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  Sha256 hash;
  hash.update(text.data(), text.size());
  const auto digest = hash.digest();
  SegmentDocument document;
  document.end = ids_.size();
  std::memcpy(&document.hash, digest.data(), sizeof document.hash);
  document.bytes = static_cast<uint32_t>(text.size());
  document.words = static_cast<uint32_t>(count_words(text));
  documents_.push_back(document);
  counts_.tokens += static_cast<int64_t>(ids.size());
  counts_.documents += 1;
  counts_.bytes += document.bytes;
  counts_.words += document.words;
}

std::string SegmentBuilder::finish(const SegmentIdentity& identity, bool last) {
  Header header{};
  header.magic = kMagic;
  header.version = kVersion;
  header.id_bytes = vocabulary_ <= 65'536 ? 2 : 4;
  header.source = identity.source;
  header.number = identity.number;
  header.counts = counts_;
  header.last = last ? 1 : 0;
  std::string content(file_bytes(header), '\0');
  char* documents = content.data() + sizeof header;
  const size_t document_bytes = documents_.size() * sizeof(SegmentDocument);
  if (document_bytes > 0) std::memcpy(documents, documents_.data(), document_bytes);
  if (header.id_bytes == 2) {
    std::transform(ids_.begin(), ids_.end(),
                   reinterpret_cast<uint16_t*>(documents + document_bytes),
                   [](int32_t id) { return static_cast<uint16_t>(id); });
  } else if (!ids_.empty()) {
    std::memcpy(documents + document_bytes, ids_.data(), ids_.size() * sizeof(int32_t));
  }
  header.body_crc = crc32c(documents, content.size() - sizeof header);
  header.header_crc = header_crc(header);
  std::memcpy(content.data(), &header, sizeof header);
  return content;
}

}  // namespace polysketch
