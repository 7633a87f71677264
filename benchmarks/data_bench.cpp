// SPDX-License-Identifier: Apache-2.0
// How fast cached token ids reach a trainer that takes no time itself: windows in training order,
// with digest, one consumer.
//
//   data_bench CONFIG [key.path=value ...]      run `polysketch data prepare` with the same
//   arguments first
//
// Prints one line a round: MB/s of ids as they lie in the cache (4 bytes each) by the wall clock
// and by a second of CPU time.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "config/load.hpp"
#include "data/batch_stream.hpp"

namespace polysketch {
namespace {

constexpr int kRounds = 7;
constexpr double kSecondsPerRound = 3;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void run(const Config& config) {
  const Corpus corpus = Corpus::open(config.data);
  const Tokenizer tokenizer(config.data.tokenizer.path);
  BatchStream::Options options;
  options.rows_per_batch = options.sequences_per_step = 16;
  BatchStream stream(config.data, corpus, tokenizer, options);
  (void)stream.next();
  for (int round = 0; round < kRounds; ++round) {
    const double start = wall_seconds(), cpu = cpu_seconds();
    double bytes = 0, seconds = 0;
    uint64_t digest = 0;
    while ((seconds = wall_seconds() - start) < kSecondsPerRound) {
      const Batch batch = stream.next();
      bytes += 4.0 * static_cast<double>(batch.ids.size());
      digest += batch.digest;
    }
    std::printf("%.1f MB/s wall, %.1f MB per CPU second, epoch %lld, digest %016llx\n",
                bytes / seconds / 1e6, bytes / (cpu_seconds() - cpu) / 1e6,
                static_cast<long long>(stream.epoch()), static_cast<unsigned long long>(digest));
  }
}

}  // namespace
}  // namespace polysketch

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: data_bench CONFIG [key.path=value ...]\n", stderr);
    return 64;
  }
  try {
    polysketch::run(
        polysketch::load_config(argv[1], std::vector<std::string>(argv + 2, argv + argc)));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
