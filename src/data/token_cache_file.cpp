// SPDX-License-Identifier: Apache-2.0
#include "data/token_cache_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/log.hpp"
#include "support/standard_streams.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace fs = std::filesystem;

namespace {

constexpr std::chrono::seconds kLeftoverAge{60};  // no segment takes so long to write

}  // namespace

/// Text of the documents of one segment.
struct TokenCache::File::Text {
  std::vector<Document> documents;
  int64_t skipped = 0;
  bool last = false;
};

/// A reader that stands before the first document of segment `next`.
struct TokenCache::File::Reading {
  std::unique_ptr<DocumentReader> reader;
  int64_t next = 0;
  uint64_t records = 0;  // records of the file behind the reader
  Document ahead;        // already read, to know whether anything follows
  bool has_ahead = false, ended = false;

  explicit Reading(std::unique_ptr<DocumentReader> source) : reader(std::move(source)) { step(); }
  void step() {
    has_ahead = !ended && reader->next(ahead);
    ended = !has_ahead;
  }

  /// Documents until their text reaches the target, at least one; none at the end of the file.
  Text read(int64_t target) {
    Text text;
    for (int64_t bytes = 0; has_ahead && bytes < target; step()) {
      bytes += static_cast<int64_t>(ahead.text.size());
      // A long record may come in several parts with the same index.
      if (ahead.index >= records) text.skipped += static_cast<int64_t>(ahead.index - records);
      records = ahead.index + 1;
      text.documents.push_back(std::move(ahead));
      ahead = Document();
    }
    text.last = ended;
    // Behind the last document there may be records without one, too.
    if (ended && reader->records() > records)
      text.skipped += static_cast<int64_t>(reader->records() - records);
    ++next;
    return text;
  }
};

/// Marks a thread as working under the lock of the file's folder.
class TokenCache::File::WorkingHere {
 public:
  explicit WorkingHere(File& file) : file_(file) {}
  ~WorkingHere() { file_.leave_folder(); }
  WorkingHere(const WorkingHere&) = delete;
  WorkingHere& operator=(const WorkingHere&) = delete;

 private:
  File& file_;
};

TokenCache::File::File(std::shared_ptr<Shared> shared, Input input)
    : shared_(std::move(shared)), input_(std::move(input)) {}

TokenCache::File::~File() {
  if (lock_ >= 0) ::close(lock_);
}

fs::path TokenCache::File::path(int64_t number) const {
  return folder_ / fmt::format("seg-{:05}.tok", number);
}

void TokenCache::File::open() {
  if (opened_) return;
  const std::string hash = input_.content_hash();
  folder_ = shared_->folder / hash;
  const std::string name = sha256_hex(shared_->folder.filename().string() + "/" + hash);
  source_ = std::stoull(name.substr(0, 16), nullptr, 16);
  read_index();
  opened_ = true;
}

void TokenCache::File::note(int64_t number, const SegmentSummary& summary) {
  summaries_[number] = summary;
  if (summary.last) segments_ = number + 1;
}

std::optional<SegmentSummary> TokenCache::File::known(int64_t number) {
  if (const auto found = summaries_.find(number); found != summaries_.end()) return found->second;
  const auto summary = read_segment_summary(path(number), identity(number));
  if (summary) note(number, *summary);
  return summary;
}

SegmentSource::Known TokenCache::File::look_up(int64_t number) {
  const std::lock_guard lock(mutex_);
  open();
  if (past_end(number)) return {true, std::nullopt};
  const auto summary = known(number);
  if (summary) return {true, summary};
  return {past_end(number), std::nullopt};
}

std::optional<TokenCache::FileSummary> TokenCache::File::summary() {
  const std::lock_guard lock(mutex_);
  open();
  FileSummary total;
  for (;; ++total.segments) {
    if (past_end(total.segments)) return total;
    const auto segment = known(total.segments);
    if (!segment) return std::nullopt;
    total.counts += segment->counts;
  }
}

std::shared_ptr<const Segment> TokenCache::File::load(int64_t number) {
  for (;;) {
    if (shared_->cancelled) throw Cancelled();
    {
      std::unique_lock lock(mutex_);
      open();
      changed_.wait(lock, [&] { return !in_work_.contains(number); });
      if (past_end(number)) return nullptr;
    }
    if (auto segment = map_or_discard(number)) return segment;
    if (!take_folder(number)) continue;
    const WorkingHere here(*this);
    if (auto segment = make(number)) return segment;
  }
}

/// Null if there is none, or if it was damaged: then it is gone now.
std::shared_ptr<const Segment> TokenCache::File::map_or_discard(int64_t number) {
  const fs::path file = path(number);
  std::error_code ignored;
  if (!fs::exists(file, ignored)) {
    const std::lock_guard lock(mutex_);
    summaries_.erase(number);
    return nullptr;
  }
  try {
    auto segment = Segment::map(file, identity(number), shared_->encoder.vocabulary);
    const std::lock_guard lock(mutex_);
    note(number, segment->summary());
    return segment;
  } catch (const SegmentDamaged& fault) {
    log_warning(
        fmt::format("{}: damaged token cache ({}): removed, this part of {} is tokenised again",
                    file.string(), fault.what(), input_.name));
    const std::lock_guard lock(mutex_);
    discard(number);
  } catch (const UserError& error) {
    // removed by another process since: made again like a missing one
    if (error.code() != ExitCode::missing_input) throw;
  }
  return nullptr;
}

void TokenCache::File::discard(int64_t number) {
  std::error_code error;
  fs::remove(path(number), error);
  if (error)
    throw_system_error(path(number), "remove the damaged file", error.value(),
                       ExitCode::permission);
  fs::remove(folder_ / "index.json", error);
  summaries_.erase(number);
  indexed_ = false;
}

/// What killed writers left behind. Young files are spared: where locks do not reach across
/// machines they may be somebody's work.
void TokenCache::File::remove_leftovers() {
  std::error_code ignored;
  std::vector<fs::path> leftovers;
  fs::directory_iterator at(folder_, ignored);
  const fs::directory_iterator end;
  for (std::error_code step; !step && at != end; at.increment(step)) {
    const fs::directory_entry& entry = *at;
    const bool temporary = entry.path().filename().string().find(".tmp-") != std::string::npos;
    if (temporary &&
        fs::file_time_type::clock::now() - entry.last_write_time(ignored) > kLeftoverAge)
      leftovers.push_back(entry.path());
  }
  for (const auto& leftover : leftovers) fs::remove(leftover, ignored);
}

bool TokenCache::File::take_folder(int64_t number) {
  using Clock = std::chrono::steady_clock;
  auto start = Clock::now();
  std::error_code ignored;
  auto changed = fs::last_write_time(folder_, ignored);
  auto pause = std::chrono::milliseconds(2);
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (lock_users_ > 0) {
        ++lock_users_;
        return true;
      }
      polysketch::create_directories(folder_);
      const fs::path name = folder_ / "lock";
      const int fd = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      if (fd < 0) {
        throw UserError(
            exit_code_of(errno, ExitCode::cannot_create),
            fmt::format("{}: cannot create: {}: set data.cache to a folder that can be written",
                        name.string(), reason_of(errno)));
      }
      const bool taken = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
      // A file system without flock (some network ones) costs double work at most.
      const bool unsupported = !taken && errno != EWOULDBLOCK && errno != EINTR;
      const bool waited_enough =
          overtaken_ ||
          std::chrono::duration<double>(Clock::now() - start).count() > shared_->options.patience;
      if (taken || unsupported || waited_enough) {
        if (!taken && !unsupported && !overtaken_) {
          log_warning(fmt::format(
              "{}: another process holds the lock but makes no progress: tokenising {} beside it",
              name.string(), input_.name));
        }
        overtaken_ = !taken && !unsupported;
        if (taken) remove_leftovers();
        lock_ = fd;
        lock_users_ = 1;
        return true;
      }
      ::close(fd);
    }
    if (shared_->cancelled) throw Cancelled();
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(50));
    const auto now_changed = fs::last_write_time(folder_, ignored);
    if (now_changed != changed) start = Clock::now();  // somebody gets on
    changed = now_changed;
    const std::lock_guard lock(mutex_);
    if (known(number) || past_end(number)) return false;
  }
}

void TokenCache::File::leave_folder() {
  const std::lock_guard lock(mutex_);
  if (--lock_users_ > 0) return;
  ::close(lock_);
  lock_ = -1;
}

/// Reads on and tokenises one segment: the wanted one, or an earlier one that is missing (then, and
/// when another thread was faster, gives null: look again).
std::shared_ptr<const Segment> TokenCache::File::make(int64_t number) {
  std::unique_lock lock(mutex_);
  if (in_work_.contains(number) || past_end(number) || known(number)) return nullptr;
  if (!reading_ || reading_->next > number) reading_ = std::make_unique<Reading>(input_.open());
  for (;;) {
    if (shared_->cancelled) throw Cancelled();
    const int64_t at = reading_->next;
    Text text;
    try {
      text = reading_->read(segment_target(shared_->options.segment_bytes, at));
    } catch (...) {
      reading_.reset();  // whoever tries again starts from a clean reader and meets the same error
      throw;
    }
    if (text.last) {
      reading_.reset();
      segments_ = text.documents.empty() ? at : at + 1;
    }
    if (text.documents.empty() || in_work_.contains(at) || is_cached(at, text)) {
      if (!text.last && at < number) continue;
      write_index_if_complete();
      return nullptr;
    }
    in_work_.insert(at);
    lock.unlock();
    std::shared_ptr<const Segment> segment;
    std::exception_ptr error;
    try {
      segment = encode(at, text);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    in_work_.erase(at);
    changed_.notify_all();
    if (error) std::rethrow_exception(error);
    note(at, segment->summary());
    write_index_if_complete();
    return at == number ? segment : nullptr;
  }
}

/// True when the segment on disk is the one of this text. One made by a reader that saw other
/// documents is removed.
bool TokenCache::File::is_cached(int64_t number, const Text& text) {
  const auto summary = known(number);
  if (!summary) return false;
  int64_t bytes = 0;
  for (const auto& document : text.documents) bytes += static_cast<int64_t>(document.text.size());
  const SegmentCounts& counts = summary->counts;
  if (counts.bytes == bytes && counts.documents == static_cast<int64_t>(text.documents.size()) &&
      summary->last == text.last)
    return true;
  log_warning(fmt::format("{}: holds other documents than {} has there now: removed",
                          path(number).string(), input_.name));
  discard(number);
  return false;
}

std::shared_ptr<const Segment> TokenCache::File::encode(int64_t number, Text& text) {
  const Encoder& encoder = shared_->encoder;
  SegmentBuilder builder(encoder.vocabulary);
  builder.add_skipped(text.skipped);
  std::vector<int32_t> ids;
  for (auto& document : text.documents) {
    if (shared_->cancelled) throw Cancelled();
    ids.clear();
    encoder.encode(document.text, ids);
    ids.push_back(encoder.eos);
    builder.add(document.text, ids, encoder.unknown);
    document.text = std::string();
  }
  const SegmentCounts counts = builder.counts();
  const std::string content = builder.finish(identity(number), text.last);
  DurableFile file(path(number));
  file.reserve(content.size());
  file.write(content.data(), content.size());
  file.commit();
  shared_->segments_made += 1;
  shared_->tokens_made += counts.tokens;
  shared_->bytes_made += counts.bytes;
  return Segment::map(path(number), identity(number), encoder.vocabulary);
}

void TokenCache::File::read_index() {
  const fs::path file = folder_ / "index.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return;
  try {
    const auto json = nlohmann::json::parse(read_file(file));
    const auto& body = json.at("segments");
    const std::string text = body.dump();
    if (json.at("crc32c").get<uint32_t>() != crc32c(text.data(), text.size()))
      throw std::runtime_error("CRC differs");
    std::map<int64_t, SegmentSummary> summaries;
    for (const auto& row : body) {
      const auto n = static_cast<int64_t>(summaries.size());
      const SegmentCounts counts{row.at(0), row.at(1), row.at(2), row.at(3), row.at(4), row.at(5)};
      summaries[n] = {counts, n + 1 == static_cast<int64_t>(body.size())};
    }
    segments_ = static_cast<int64_t>(summaries.size());
    summaries_ = std::move(summaries);
    indexed_ = true;
  } catch (const std::exception& error) {
    log_warning(fmt::format("{}: damaged ({}): removed, made again from the segments",
                            file.string(), error.what()));
    fs::remove(file, ignored);
  }
}

void TokenCache::File::write_index_if_complete() {
  if (indexed_ || !segments_ || !in_work_.empty()) return;
  auto rows = nlohmann::json::array();
  SegmentCounts total;
  for (int64_t i = 0; i < *segments_; ++i) {
    const auto summary = known(i);
    if (!summary) return;
    const SegmentCounts& c = summary->counts;
    rows.push_back({c.tokens, c.documents, c.bytes, c.words, c.unknown, c.skipped});
    total += c;
  }
  const std::string body = rows.dump();
  nlohmann::ordered_json index;
  index["file"] = input_.name;
  index["complete"] = true;
  index["columns"] = {"tokens", "documents", "bytes", "words", "unknown", "skipped"};
  index["total"] = {total.tokens, total.documents, total.bytes,
                    total.words,  total.unknown,   total.skipped};
  index["segments"] = rows;
  index["crc32c"] = crc32c(body.data(), body.size());
  write_file_durably(folder_ / "index.json", json_text(index, -1) + "\n");
  indexed_ = true;
  if (*segments_ == 0) log_warning(fmt::format("{}: contains no documents", input_.name));
}

TokenCache::Verification TokenCache::File::verify() {
  Verification result;
  const std::lock_guard lock(mutex_);
  open();
  for (int64_t number = 0; !past_end(number); ++number) {
    const fs::path file = path(number);
    std::error_code missing;
    const auto size = fs::file_size(file, missing);
    if (missing) {
      if (indexed_) {
        result.damaged.push_back(file.string() + ": missing");
        continue;
      }
      return result;
    }
    result.segments += 1;
    result.bytes += static_cast<int64_t>(size);
    try {
      const auto segment = Segment::map(file, identity(number), shared_->encoder.vocabulary);
      const auto noted = summaries_.find(number);
      if (noted != summaries_.end() && noted->second.counts != segment->counts())
        throw SegmentDamaged("index and segment differ");
      note(number, segment->summary());
    } catch (const SegmentDamaged& fault) {
      result.damaged.push_back(fmt::format("{}: {}", file.string(), fault.what()));
    }
  }
  result.complete = result.damaged.empty();
  return result;
}

}  // namespace polysketch
