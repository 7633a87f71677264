// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer.hpp"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <set>
#include <unordered_map>

#include "data/cleaning.hpp"
#include "data/safe_cuts.hpp"
#include "data/tokenizer_losses.hpp"
#include "data/tokenizer_model.hpp"
#include "data/tokenizer_probe.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"

namespace polysketch {
namespace {

using sentencepiece::SentencePieceProcessor;

constexpr uint64_t kMaxModelBytes = uint64_t{64} << 20;
constexpr int kProbeSeconds = 60;

const std::array<std::string, 10> kProbes = {
    "The quick brown fox jumps over the lazy dog.",
    "A line\nand another\n\nafter an empty one\n",
    "\tTabs\tand  runs   of    blanks ",
    "Numbers 1234567890, 3.14159 and $1,000,000; (brackets) [and] {braces}!",
    "caf\xC3\xA9 na\xC3\xAFve \xE2\x80\x9Cquotes\xE2\x80\x9D \xE2\x80\x93 dash \xE2\x80\xA6",
    "\xCE\xB1\xCE\xB2\xCE\xB3 \xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 "
    "\xE6\xBC\xA2\xE5\xAD\x97 \xEF\xBC\xA1\xEF\xBC\xA2",
    "\xF0\x9F\x98\x80 \xF0\x90\x8D\x88 \xE2\x88\x80x\xE2\x88\x88\xE2\x84\x9D",
    "e\xCC\x81 \xEF\xAC\x81 \xC2\xBD \xC2\xA0 \xE3\x80\x80",
    " leading and trailing ",
    "\r\nWindows\r\nline ends\r\n",
};

std::string status_text(const absl::Status& status) {
  std::string text(status.message());
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// Everything that is done with a model at all, on a model nobody has tried before. Returns what is
/// wrong.
std::string try_model(const std::string& serialized, const std::string& plain) {
  SentencePieceProcessor whole, parts;
  if (const auto status = whole.LoadFromSerializedProto(serialized); !status.ok())
    return status_text(status);
  if (const auto status = parts.LoadFromSerializedProto(plain); !status.ok())
    return status_text(status);
  for (const auto& probe : kProbes) {
    std::vector<int> ids;
    std::string text;
    if (const auto status = whole.Encode(probe, &ids); !status.ok()) return status_text(status);
    for (const int id : ids) {
      if (id < 0 || id >= whole.GetPieceSize())
        return fmt::format("it gives the id {}, which is outside its vocabulary", id);
    }
    if (const auto status = whole.Decode(absl::MakeConstSpan(ids), &text); !status.ok())
      return status_text(status);
    if (const auto status = whole.Normalize(probe, &text); !status.ok()) return status_text(status);
    if (const auto status = parts.Encode(text, &ids); !status.ok()) return status_text(status);
  }
  return "";
}

/// Models that this process has tried already, by hash.
bool tried_before(const std::string& sha256) {
  static std::mutex mutex;
  static std::set<std::string> tried;
  const std::lock_guard lock(mutex);
  return !tried.insert(sha256).second;
}

/// Ids of short pieces of text between two safe cuts, which are mostly words and so come again and
/// again. One per thread.
class SegmentMemory {
 public:
  static constexpr size_t kLongest = 160;

  /// Empties itself when it is asked for another tokenizer than before.
  void use(uint64_t owner) {
    if (owner == owner_) return;
    clear();
    owner_ = owner;
  }
  bool append(std::string_view segment, std::vector<int32_t>& ids) const {
    const auto found = spans_.find(segment);
    if (found == spans_.end()) return false;
    const auto first = pool_.begin() + found->second.begin;
    ids.insert(ids.end(), first, first + found->second.count);
    return true;
  }
  void remember(std::string_view segment, const int32_t* ids, size_t count) {
    if (spans_.size() >= kEntries) clear();
    spans_.emplace(std::string(segment),
                   Span{static_cast<uint32_t>(pool_.size()), static_cast<uint32_t>(count)});
    pool_.insert(pool_.end(), ids, ids + count);
  }

 private:
  static constexpr size_t kEntries = size_t{1} << 17;
  struct Span {
    uint32_t begin, count;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  void clear() {
    spans_.clear();
    pool_.clear();
  }
  uint64_t owner_ = 0;
  std::unordered_map<std::string, Span, Hash, std::equal_to<>> spans_;
  std::vector<int32_t> pool_;
};

}  // namespace

struct Tokenizer::State {
  State(const std::string& file, const std::string& serialized)
      : path(file),
        model(check_model(serialized, file)),
        cuts(model),
        sha256(sha256_hex(serialized)) {
    static std::atomic<uint64_t> numbers{0};
    number = ++numbers;
    sentencepiece::SetMinLogLevel(3);
    const std::string plain = without_normalizer(serialized);
    if (!tried_before(sha256)) {
      const std::string wrong =
          probe_in_child([&] { return try_model(serialized, plain); }, kProbeSeconds);
      if (!wrong.empty()) fail(wrong);
    }
    if (const auto status = whole.LoadFromSerializedProto(serialized); !status.ok())
      fail(status_text(status));
    if (const auto status = normalized.LoadFromSerializedProto(plain); !status.ok())
      fail(status_text(status));
    if (whole.GetPieceSize() != static_cast<int>(model.pieces.size()))
      fail("its pieces cannot be counted");
    for (size_t id = 0; id < model.pieces.size(); ++id)
      ids.emplace(model.pieces[id].text, static_cast<int32_t>(id));
    find_mark_bytes();
  }

  /// The pieces of the bytes of U+2581, if this model keeps everything else as it is.
  void find_mark_bytes() {
    if (!model.byte_fallback || model.character_map || model.remove_extra_whitespaces ||
        !model.escape_whitespaces || model.whitespace_as_suffix || !cuts.possible())
      return;
    for (const char byte : kBlankMark) {
      const auto found = ids.find(fmt::format("<0x{:02X}>", static_cast<uint8_t>(byte)));
      if (found == ids.end() ||
          model.pieces[static_cast<size_t>(found->second)].type != PieceType::byte)
        return mark_bytes.clear();
      mark_bytes.push_back(found->second);
    }
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw UserError(
        ExitCode::bad_data,
        fmt::format("{}: not a usable SentencePiece model: {}: use another model", path, what));
  }

  void encode_with(const SentencePieceProcessor& processor, std::string_view text,
                   std::vector<int>& out) const {
    if (const auto status = processor.Encode(text, &out); !status.ok()) {
      throw UserError(ExitCode::bad_data, fmt::format("{}: SentencePiece cannot encode a text: {}",
                                                      path, status_text(status)));
    }
    for (const int id : out) {
      if (id < 0 || id >= static_cast<int>(model.pieces.size()))
        fail(fmt::format("it gave the id {}, which is outside its vocabulary", id));
    }
  }

  /// Byte offsets of the text's own U+2581 in its normalised form, where the normaliser did nothing
  /// but write blanks as U+2581 too.
  std::vector<size_t> blank_marks(std::string_view text, std::string_view form) const {
    std::vector<size_t> marks;
    size_t at = model.dummy_prefix ? kBlankMark.size() : 0;
    for (size_t i = 0; i < text.size();) {
      const bool mark = text.substr(i).starts_with(kBlankMark);
      if (mark) marks.push_back(at);
      at += mark || text[i] == ' ' ? kBlankMark.size() : 1;
      i += mark ? kBlankMark.size() : 1;
    }
    if (at != form.size()) marks.clear();  // ill-formed UTF-8 was replaced
    return marks;
  }

  std::string path;
  ModelSummary model;
  SafeCuts cuts;
  std::string sha256;
  uint64_t number = 0;                // of this object among all of this process
  SentencePieceProcessor whole;       // the model as it is
  SentencePieceProcessor normalized;  // the same for text that is normalised already
  std::unordered_map<std::string_view, int32_t> ids;
  std::vector<int32_t> mark_bytes;  // ids for U+2581; empty: it is left to SentencePiece
  mutable std::once_flag tried;
  mutable std::vector<std::string> losses;
};

Tokenizer::Tokenizer(const std::string& path) {
  if (path.empty())
    throw UserError(ExitCode::missing_input,
                    "data.tokenizer.path: is empty: set it to a SentencePiece .model file");
  state_ = std::make_shared<const State>(path, read_file(path, kMaxModelBytes));
}

Tokenizer Tokenizer::from_bytes(const std::string& serialized, const std::string& name) {
  return Tokenizer(std::make_shared<const State>(name, serialized));
}

void Tokenizer::encode(std::string_view text, std::vector<int32_t>& ids) const {
  thread_local std::string normalized;
  thread_local std::vector<int> part;
  thread_local SegmentMemory memory;
  if (text.empty()) return;
  if (!state_->cuts.possible()) {
    state_->encode_with(state_->whole, text, part);
    ids.insert(ids.end(), part.begin(), part.end());
    return;
  }
  if (const auto status = state_->whole.Normalize(text, &normalized); !status.ok()) {
    throw UserError(ExitCode::bad_data, fmt::format("{}: SentencePiece cannot normalise a text: {}",
                                                    state_->path, status_text(status)));
  }
  memory.use(state_->number);
  const auto encode_stretch = [&](std::string_view all) {
    for (size_t begin = 0; begin < all.size();) {
      const size_t end = state_->cuts.next(all, begin);
      const std::string_view segment = all.substr(begin, end - begin);
      begin = end;
      if (segment.size() <= SegmentMemory::kLongest && memory.append(segment, ids)) continue;
      state_->encode_with(state_->normalized, segment, part);
      ids.insert(ids.end(), part.begin(), part.end());
      if (segment.size() <= SegmentMemory::kLongest)
        memory.remember(segment, part.data(), part.size());
    }
  };
  const std::string_view whole = normalized;
  size_t begin = 0;
  if (escapes_blank_mark() && text.find(kBlankMark) != std::string_view::npos) {
    for (const size_t mark : state_->blank_marks(text, whole)) {
      encode_stretch(whole.substr(begin, mark - begin));
      ids.insert(ids.end(), state_->mark_bytes.begin(), state_->mark_bytes.end());
      begin = mark + kBlankMark.size();
    }
  }
  encode_stretch(whole.substr(begin));
  constexpr size_t kKeep = size_t{1} << 22;
  if (normalized.capacity() > kKeep) normalized = std::string();
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode(text, ids);
  return ids;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocabulary()) {
      throw UserError(ExitCode::bad_data,
                      fmt::format("id {} is outside the vocabulary of {} ({} pieces)", id,
                                  state_->path, vocabulary()));
    }
  }
  std::string text;
  if (const auto status = state_->whole.Decode(absl::MakeConstSpan(ids), &text); !status.ok()) {
    throw UserError(ExitCode::bad_data, fmt::format("{}: SentencePiece cannot decode: {}",
                                                    state_->path, status_text(status)));
  }
  return text;
}

int32_t Tokenizer::vocabulary() const { return static_cast<int32_t>(state_->model.pieces.size()); }
int32_t Tokenizer::unknown() const { return state_->whole.unk_id(); }
int32_t Tokenizer::bos() const { return state_->whole.bos_id(); }
bool Tokenizer::has_eos() const { return state_->whole.eos_id() >= 0; }
int32_t Tokenizer::pad() const { return state_->whole.pad_id(); }

int32_t Tokenizer::eos() const {
  const int32_t id = state_->whole.eos_id();
  if (id < 0)
    throw UserError(
        ExitCode::bad_data,
        fmt::format("{}: the model has no </s> piece to separate documents: use one that has",
                    state_->path));
  return id;
}

bool Tokenizer::is_byte(int32_t id) const {
  return id >= 0 && id < vocabulary() &&
         state_->model.pieces[static_cast<size_t>(id)].type == PieceType::byte;
}
bool Tokenizer::is_control(int32_t id) const {
  return id >= 0 && id < vocabulary() &&
         state_->model.pieces[static_cast<size_t>(id)].type == PieceType::control;
}

const std::string& Tokenizer::piece(int32_t id) const {
  require(id >= 0 && id < vocabulary(), "Tokenizer::piece: id outside the vocabulary");
  return state_->model.pieces[static_cast<size_t>(id)].text;
}

int32_t Tokenizer::id_of(std::string_view piece) const {
  const auto found = state_->ids.find(piece);
  return found == state_->ids.end() ? -1 : found->second;
}

const std::string& Tokenizer::sha256() const { return state_->sha256; }
const std::string& Tokenizer::path() const { return state_->path; }
const ModelSummary& Tokenizer::model() const { return state_->model; }

bool Tokenizer::escapes_blank_mark() const { return !state_->mark_bytes.empty(); }

std::string Tokenizer::encoding_id() const {
  return escapes_blank_mark() ? sha256() + "+2581" : sha256();
}

const std::vector<std::string>& Tokenizer::losses() const {
  std::call_once(state_->tried, [this] {
    state_->losses = find_losses([this](const std::string& text) { return decode(encode(text)); },
                                 {kProbes.begin(), kProbes.end()});
  });
  return state_->losses;
}

void Tokenizer::require_fits(int64_t model_vocabulary, Cleaning cleaning) const {
  if (vocabulary() > model_vocabulary) {
    throw UserError(ExitCode::config, fmt::format("model.vocabulary: {} is less than the {} pieces "
                                                  "of {}: set model.vocabulary to at least that",
                                                  model_vocabulary, vocabulary(), state_->path));
  }
  if (cleaning != Cleaning::markers) return;
  for (const auto marker : kWikiMarkers) {
    const int32_t id = id_of(marker);
    if (id < 0 || state_->model.pieces[static_cast<size_t>(id)].type != PieceType::user_defined) {
      throw UserError(ExitCode::config, fmt::format("data.cleaning: markers needs the piece '{}', "
                                                    "which {} lacks: train the tokenizer with "
                                                    "--cleaning markers, or choose plain or none",
                                                    marker, state_->path));
    }
  }
}

}  // namespace polysketch
