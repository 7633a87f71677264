// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "distributed/collectives.hpp"

namespace polysketch {
namespace {

class Done final : public PendingExchange {
 public:
  void wait() override {}
  std::pair<double, double> span() const override { return {0, 0}; }
};

class LoneCollectives final : public Collectives {
 public:
  int64_t rank() const override { return 0; }
  int64_t world() const override { return 1; }
  Pending all_reduce(const at::Tensor&, ReduceOperation, const std::string&) override {
    return std::make_unique<Done>();
  }
  Pending all_gather(const at::Tensor& out, const at::Tensor& in, const std::string&) override {
    if (out.data_ptr() != in.data_ptr()) at::Tensor(out).copy_(in);
    return std::make_unique<Done>();
  }
  Pending reduce_scatter(const at::Tensor&, const std::string&) override {
    return std::make_unique<Done>();
  }
  Pending broadcast(const at::Tensor&, int64_t, const std::string&) override {
    return std::make_unique<Done>();
  }
  std::vector<std::string> all_gather_text(const std::string& text, const std::string&) override {
    return {text};
  }
  void all_reduce(std::vector<double>&, ReduceOperation, const std::string&) override {}
  double ping(int64_t, int64_t, int64_t) override { return 0; }
  const std::string& transport() const override {
    static const std::string none = "none";
    return none;
  }
};

}  // namespace

std::unique_ptr<Collectives> make_lone_collectives() { return std::make_unique<LoneCollectives>(); }

}  // namespace polysketch
