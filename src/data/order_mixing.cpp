// SPDX-License-Identifier: Apache-2.0
#include "data/order_mixing.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/batch_stream_windows.hpp"
#include "data/segment_loader.hpp"

namespace polysketch {
namespace {

/// The segments of a split as they lie in its files, behind each other.
struct PlainRun {
  std::vector<SegmentRef> segments;
  std::vector<int64_t> ends;  // tokens up to the end of each

  explicit PlainRun(SegmentSource& source) {
    for (int64_t file = 0; file < source.files(); ++file) {
      for (SegmentRef ref{file, 0};; ++ref.segment) {
        const auto known = source.look_up(ref);
        if (!known.summary) break;
        segments.push_back(ref);
        ends.push_back(tokens() + known.summary->counts.tokens);
      }
    }
  }
  int64_t tokens() const { return ends.empty() ? 0 : ends.back(); }
};

/// Reads parts of the run; fast when they come in rising order.
class PlainReader {
 public:
  PlainReader(SegmentSource& source, const PlainRun& run) : source_(source), run_(run) {}

  void copy(int64_t begin, int64_t count, int32_t* out) {
    auto i = static_cast<size_t>(std::upper_bound(run_.ends.begin(), run_.ends.end(), begin) -
                                 run_.ends.begin());
    for (; count > 0; ++i) {
      if (!segment_ || i != at_) segment_ = source_.load(run_.segments[i]);
      at_ = i;
      const int64_t segment_begin = i == 0 ? 0 : run_.ends[i - 1];
      const int64_t n = std::min(count, run_.ends[i] - begin);
      segment_->copy(begin - segment_begin, n, out);
      begin += n;
      count -= n;
      out += n;
    }
  }

 private:
  SegmentSource& source_;
  const PlainRun& run_;
  size_t at_ = 0;
  std::shared_ptr<const Segment> segment_;
};

}  // namespace

double jensen_shannon(std::span<const int64_t> a, std::span<const int64_t> b) {
  const auto total = [](std::span<const int64_t> histogram) {
    return static_cast<double>(std::accumulate(histogram.begin(), histogram.end(), int64_t{0}));
  };
  const auto share = [](std::span<const int64_t> histogram, size_t i, double all) {
    return i < histogram.size() ? static_cast<double>(histogram[i]) / all : 0.0;
  };
  const double all_a = total(a), all_b = total(b);
  double sum = 0;
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    const double p = share(a, i, all_a), q = share(b, i, all_b), mean = (p + q) / 2;
    if (p > 0) sum += p * std::log(p / mean);
    if (q > 0) sum += q * std::log(q / mean);
  }
  return std::max(0.0, sum / 2);
}

void count_ids(std::span<const int32_t> ids, std::vector<int64_t>& histogram) {
  for (const int32_t id : ids) {
    const auto index = static_cast<size_t>(id);
    if (index >= histogram.size()) histogram.resize(index + 1);
    ++histogram[index];
  }
}

std::vector<OrderMixing> measure_mixing(const std::shared_ptr<SegmentSource>& source,
                                        const DataConfig& config, uint64_t seed, int order_version,
                                        std::span<const int64_t> whole,
                                        const std::vector<WindowRange>& ranges) {
  const PlainRun run(*source);
  const int64_t all = windows_within(run.tokens(), config.context);
  SegmentLoader loader(source, tokeniser_threads(config.threads), false);
  TrainingWindows training(loader, config.shuffle, config.context, seed, order_version);
  PlainReader plain(*source, run);
  std::vector<int32_t> ids(static_cast<size_t>(config.context + 1));
  const std::span inputs(ids.data(), ids.size() - 1);
  std::vector<OrderMixing> result;
  for (const WindowRange& range : ranges) {
    OrderMixing mixing;
    mixing.windows = {range.first, std::clamp<int64_t>(all - range.first, 0, range.count)};
    const int64_t count = mixing.windows.count;
    if (count > 0) {
      std::vector<int64_t> ordered, random, drawn;
      const IndexPermutation permutation(static_cast<uint64_t>(all), seed, RandomPurpose::sampling,
                                         static_cast<uint64_t>(range.first));
      for (int64_t i = 0; i < count; ++i) {
        training.read(range.first + i, ids.data());
        count_ids(inputs, ordered);
        drawn.push_back(static_cast<int64_t>(permutation(static_cast<uint64_t>(i))));
      }
      std::sort(drawn.begin(), drawn.end());
      for (const int64_t window : drawn) {
        plain.copy(window * config.context, config.context, ids.data());
        count_ids(inputs, random);
      }
      mixing.ordered = jensen_shannon(ordered, whole);
      mixing.random = jensen_shannon(random, whole);
    }
    result.push_back(mixing);
  }
  return result;
}

}  // namespace polysketch
