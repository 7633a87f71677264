// SPDX-License-Identifier: Apache-2.0
#include "training/learning_rate.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace polysketch {
namespace {

ScheduleConfig schedule(ScheduleKind kind, int64_t warmup = 10) {
  ScheduleConfig config;
  config.kind = kind;
  config.peak = 2.0;
  config.warmup = warmup;
  config.final_fraction = 0.1;
  config.decay_fraction = 0.25;
  return config;
}

constexpr ScheduleKind kinds[] = {ScheduleKind::linear, ScheduleKind::cosine,
                                  ScheduleKind::constant, ScheduleKind::warmup_stable_decay};

TEST(LearningRate, WarmUpIsLinearAndReachesThePeakAfterItsSteps) {
  for (const ScheduleKind kind : kinds) {
    const ScheduleConfig config = schedule(kind);
    for (int64_t step = 0; step < 10; ++step)
      EXPECT_DOUBLE_EQ(learning_rate(config, step, 100), 2.0 * static_cast<double>(step + 1) / 11);
    EXPECT_DOUBLE_EQ(learning_rate(config, 10, 100), 2.0);
  }
}

TEST(LearningRate, EndsAtTheFinalFractionButForConstant) {
  for (const ScheduleKind kind : kinds) {
    EXPECT_NEAR(learning_rate(schedule(kind), 100, 100), kind == ScheduleKind::constant ? 2.0 : 0.2,
                1e-12);
  }
}

TEST(LearningRate, ShapesBetween) {
  EXPECT_NEAR(learning_rate(schedule(ScheduleKind::linear), 55, 100), 2 * (1 - 0.9 * 0.5), 1e-12);
  EXPECT_NEAR(learning_rate(schedule(ScheduleKind::cosine), 55, 100), 2 * (0.1 + 0.9 * 0.5), 1e-12);
  EXPECT_DOUBLE_EQ(learning_rate(schedule(ScheduleKind::warmup_stable_decay), 75, 100), 2.0);
  EXPECT_NEAR(learning_rate(schedule(ScheduleKind::warmup_stable_decay), 88, 100),
              2 * (1 - 0.9 * 13 / 25), 1e-12);
}

TEST(LearningRate, NeverRisesAfterWarmUpAndIsAlwaysPositiveBeforeTheEnd) {
  for (const ScheduleKind kind : kinds) {
    for (const int64_t warmup : {0, 1, 99, 100}) {
      ScheduleConfig config = schedule(kind, warmup);
      config.final_fraction = 0;
      for (int64_t step = 0; step < 100; ++step) {
        const double now = learning_rate(config, step, 100),
                     next = learning_rate(config, step + 1, 100);
        EXPECT_GT(now, 0);
        if (step >= warmup) {
          EXPECT_LE(next, now);
        }
      }
    }
  }
}

TEST(LearningRate, StepsMayChangeExactlyWhereThePastStaysTheSame) {
  for (const ScheduleKind kind : kinds) {
    for (const int64_t warmup : {0, 10}) {
      const ScheduleConfig config = schedule(kind, warmup);
      for (const int64_t before : {40, 100, 101}) {
        for (const int64_t now : {12, 40, 99, 100, 102, 1000}) {
          bool alike = true;
          for (int64_t done = 0; done <= std::min(before, now); ++done) {
            if (done > 0) {
              alike = alike && learning_rate(config, done - 1, before) ==
                                   learning_rate(config, done - 1, now);
            }
            EXPECT_EQ(steps_may_change(config, done, before, now), alike)
                << "kind " << static_cast<int>(kind) << ", warm-up " << warmup << ", " << done
                << " of " << before << ", now " << now;
          }
        }
      }
    }
  }
}

TEST(LearningRate, ARunIsNotShortenedBelowWhatIsDone) {
  for (const ScheduleKind kind : kinds) {
    EXPECT_FALSE(steps_may_change(schedule(kind), 50, 100, 49));
    EXPECT_TRUE(steps_may_change(schedule(kind), 50, 100, 100));
  }
  EXPECT_TRUE(steps_may_change(schedule(ScheduleKind::constant), 100, 100, 1000));
  EXPECT_TRUE(steps_may_change(schedule(ScheduleKind::warmup_stable_decay), 75, 100, 1000));
  EXPECT_FALSE(steps_may_change(schedule(ScheduleKind::warmup_stable_decay), 80, 100, 1000));
  EXPECT_FALSE(steps_may_change(schedule(ScheduleKind::linear), 50, 100, 1000));
}

}  // namespace
}  // namespace polysketch
