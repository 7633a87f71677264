// SPDX-License-Identifier: Apache-2.0
#include "support/units.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace polysketch {
namespace {

TEST(ParseCount, Accepts) {
  EXPECT_EQ(parse_count("0"), 0);
  EXPECT_EQ(parse_count("7"), 7);
  EXPECT_EQ(parse_count("3_000"), 3000);
  EXPECT_EQ(parse_count("1_000_000"), 1'000'000);
  EXPECT_EQ(parse_count("10k"), 10'000);
  EXPECT_EQ(parse_count("125k"), 125'000);
  EXPECT_EQ(parse_count("2.5M"), 2'500'000);
  EXPECT_EQ(parse_count("0.5k"), 500);
  EXPECT_EQ(parse_count("1Ki"), 1024);
  EXPECT_EQ(parse_count("1Mi"), 1 << 20);
  EXPECT_EQ(parse_count("1.5Gi"), int64_t{3} << 29);
  EXPECT_EQ(parse_count("2Ti"), int64_t{1} << 41);
  EXPECT_EQ(parse_count("1e6"), 1'000'000);
  EXPECT_EQ(parse_count("1.5e+3"), 1500);
  EXPECT_EQ(parse_count("3000e-3"), 3);
  EXPECT_EQ(parse_count("9223372036854775807"), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(parse_count("9.223372036854775807e18"), std::numeric_limits<int64_t>::max());
}

TEST(ParseCount, Refuses) {
  for (const char* text : {"",        "-1",    "+1",  "010",  "00",  " 1",    "1 ",   "1e-4", "1.5",
                           "0.0001k", "1.",    ".5k", "_1",   "1_",  "1__0",  "1_k",  "k",    "1K",
                           "1kk",     "1m",    "1ki", "0x10", "1e",  "1e6k",  "nan",  ".nan", "inf",
                           "1,000",   "1e999", "٣",   "true", "1e-", "1e++3", "1.2.3"}) {
    EXPECT_EQ(parse_count(text), std::nullopt) << text;
  }
  EXPECT_EQ(parse_count("9223372036854775808"), std::nullopt) << "2^63";
  EXPECT_EQ(parse_count("18446744073709551617"), std::nullopt) << "2^64 + 1";
  EXPECT_EQ(parse_count("9999999999999T"), std::nullopt);
  EXPECT_EQ(parse_count(std::string(1000, '9')), std::nullopt);
}

TEST(ParseReal, Accepts) {
  EXPECT_EQ(parse_real("1e-4"), 1e-4);
  EXPECT_EQ(parse_real("7e-4"), 7e-4);
  EXPECT_EQ(parse_real(".5"), 0.5);
  EXPECT_EQ(parse_real("0"), 0.0);
  EXPECT_EQ(parse_real("0.1"), 0.1);
  EXPECT_EQ(parse_real("-2.5"), -2.5);
  EXPECT_EQ(parse_real("1E3"), 1000.0);
}

TEST(ParseReal, Refuses) {
  for (const char* text :
       {"",      "-",        ".",     "nan",    ".nan", "-nan",  "inf", ".inf",
        "-inf",  "infinity", "1e999", "1e-999", "1 ",   " 1",    "1x",  "1e",
        "0x1p3", "010",      "-010",  "1,5",    "+1",   "1_000", "--1", "1e-4k"}) {
    EXPECT_EQ(parse_real(text), std::nullopt) << text;
  }
}

TEST(ParseDuration, AcceptsAndRefuses) {
  EXPECT_EQ(parse_duration("90s"), 90);
  EXPECT_EQ(parse_duration("30min"), 1800);
  EXPECT_EQ(parse_duration("2h"), 7200);
  EXPECT_EQ(parse_duration("1.5d"), 129600);
  EXPECT_EQ(parse_duration("250ms"), 0.25);
  EXPECT_DOUBLE_EQ(parse_duration("10us").value(), 1e-5);
  for (const char* text : {"", "90", "s", "-1s", "1 s", "1m", "1hh", "1.2.3s", "nans"})
    EXPECT_EQ(parse_duration(text), std::nullopt) << text;
}

TEST(ParseBandwidth, BitsAndBytesASecond) {
  EXPECT_EQ(parse_bandwidth("400Gb"), 50e9) << "bits";
  EXPECT_EQ(parse_bandwidth("400Gb/s"), 50e9);
  EXPECT_EQ(parse_bandwidth("900GB"), 900e9) << "bytes";
  EXPECT_EQ(parse_bandwidth("900GB/s"), 900e9);
  EXPECT_EQ(parse_bandwidth("3.35TB/s"), 3.35e12);
  EXPECT_EQ(parse_bandwidth("64GiB"), 64.0 * (1 << 30));
  EXPECT_EQ(parse_bandwidth("1Mb"), 125e3);
  EXPECT_EQ(parse_bandwidth("8b"), 1);
  EXPECT_EQ(parse_bandwidth("10kB"), 10e3);
}

TEST(ParseBandwidth, Refuses) {
  for (const char* text :
       {"",      "b",    "B/s",  "400",    "400G", "400gb",   "400GBit", "400Gbps",
        "-1GB",  "0Gb",  "0.0B", " 1GB",   "1 GB", "1GB ",    "1GB/",    "GB",
        "nanGB", "infB", "1e9B", "1..2GB", "/s",   "1GB/s/s", "1KB",     "010GB"})
    EXPECT_EQ(parse_bandwidth(text), std::nullopt) << text;
}

TEST(Format, BandwidthsAndMoments) {
  EXPECT_EQ(format_bandwidth(50e9), "50.0 GB/s");
  EXPECT_EQ(format_bandwidth(999.6), "1.00 kB/s");
  EXPECT_EQ(format_bandwidth(3.35e12), "3.35 TB/s");
  EXPECT_EQ(format_bandwidth(1), "1.00 B/s");
  EXPECT_EQ(format_bandwidth(std::numeric_limits<double>::infinity()), "unlimited");
  EXPECT_EQ(format_moment(0.0123), "12.3 ms");
  EXPECT_EQ(format_moment(1e-5), "10.0 us");
  EXPECT_EQ(format_moment(0.9999), "1.00 s");
  EXPECT_EQ(format_moment(12.34), "12.3 s");
  EXPECT_EQ(format_moment(0), "0 ms");
}

TEST(Format, CountsBytesDurations) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1234567), "1.23M");
  EXPECT_EQ(format_count(999'999), "1.00M");
  EXPECT_EQ(format_count(110'000'000), "110M");
  EXPECT_EQ(format_count(-12'345), "-12.3k");
  EXPECT_EQ(format_bytes(1610612736), "1.50 GiB");
  EXPECT_EQ(format_bytes(100), "100 B");
  EXPECT_EQ(format_bytes((1 << 20) - 1), "1.00 MiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<int64_t>::max()), "8.00 EiB");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(90061), "1d 1:01:01");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(std::nan("")), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

}  // namespace
}  // namespace polysketch
