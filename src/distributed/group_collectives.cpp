// SPDX-License-Identifier: Apache-2.0
#include "distributed/group_collectives.hpp"

#include <ATen/ATen.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <torch/csrc/distributed/c10d/Types.hpp>

#include "support/error.hpp"

namespace polysketch {
namespace {

using Clock = std::chrono::steady_clock;

double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

c10d::ReduceOp reduce_op(ReduceOperation operation) {
  switch (operation) {
    case ReduceOperation::sum:
      return c10d::ReduceOp::SUM;
    case ReduceOperation::min:
      return c10d::ReduceOp::MIN;
    case ReduceOperation::max:
      return c10d::ReduceOp::MAX;
  }
  throw InternalError("an unknown reduction");
}

class GroupPending final : public PendingExchange {
 public:
  GroupPending(const GroupOptions& options, OperationRecord record,
               c10::intrusive_ptr<c10d::Work> work, std::vector<at::Tensor> tensors)
      : options_(options),
        record_(std::move(record)),
        work_(std::move(work)),
        tensors_(std::move(tensors)) {
    if (!tensors_.empty() && !tensors_.front().is_cpu()) return;
    ended_ = std::make_shared<std::atomic<double>>(0);
    // When an exchange ended is known to the thread that did it, not to the one that asks later.
    // Messages between two have no future.
    if (record_.operation == "send" || record_.operation == "receive") return;
    if (const auto future = work_->getFuture()) {
      future->addCallback([ended = ended_, log = options_.log,
                           sequence = record_.sequence](c10::ivalue::Future& done) {
        if (done.hasError()) return;
        *ended = now();
        log->end(sequence);
      });
    }
  }
  ~GroupPending() override {
    // Dropped before wait(), as when an exception passes: the thread that works on it still uses
    // the tensors.
    if (work_ != nullptr && !waited_ && !tensors_.empty() && tensors_.front().is_cpu())
      leaked().push_back(std::move(tensors_));
  }

  void wait() override {
    if (waited_) return;
    try {
      work_->wait();
    } catch (const std::exception& error) {
      options_.fail(record_, error.what());
    }
    waited_ = true;
    options_.log->end(record_.sequence);
    if (ended_ && *ended_ == 0) *ended_ = now();
  }

  std::pair<double, double> span() const override {
    if (!ended_) return {0, 0};
    return {std::chrono::duration<double>(record_.begun.time_since_epoch()).count(), *ended_};
  }

 private:
  static std::vector<std::vector<at::Tensor>>& leaked() {
    static auto* all = new std::vector<std::vector<at::Tensor>>;
    return *all;
  }
  const GroupOptions& options_;
  OperationRecord record_;
  c10::intrusive_ptr<c10d::Work> work_;
  std::vector<at::Tensor> tensors_;
  std::shared_ptr<std::atomic<double>> ended_;
  bool waited_ = false;
};

class GroupCollectives final : public Collectives {
 public:
  explicit GroupCollectives(GroupOptions options) : options_(std::move(options)) {}

  int64_t rank() const override { return options_.host->getRank(); }
  int64_t world() const override { return options_.host->getSize(); }
  const std::string& transport() const override { return options_.transport; }

  Pending all_reduce(const at::Tensor& flat, ReduceOperation operation,
                     const std::string& what) override {
    return all_reduce(group_of(flat), flat, operation, what);
  }

  Pending all_gather(const at::Tensor& out, const at::Tensor& in,
                     const std::string& what) override {
    return all_gather(group_of(out), out, in, what);
  }

  Pending reduce_scatter(const at::Tensor& in, const std::string& what) override {
    if (in.is_cpu()) return all_reduce(in, ReduceOperation::sum, what);
    const int64_t part = in.numel() / world();
    const at::Tensor own = in.narrow(0, rank() * part, part);
    return begin("reduce-scatter", what, {in, own}, [&](std::vector<at::Tensor>& tensors) {
      c10d::ReduceScatterOptions options;
      options.timeout = limit();
      return group_of(in)._reduce_scatter_base(tensors[1], tensors[0], options);
    });
  }

  Pending broadcast(const at::Tensor& flat, int64_t root, const std::string& what) override {
    return begin("broadcast", what, {flat}, [&](std::vector<at::Tensor>& tensors) {
      c10d::BroadcastOptions options;
      options.rootRank = root;
      options.timeout = limit();
      return group_of(flat).broadcast(tensors, options);
    });
  }

  std::vector<std::string> all_gather_text(const std::string& text,
                                           const std::string& what) override {
    at::Tensor lengths = at::zeros({world()}, at::kLong);
    all_gather(*options_.host, lengths, at::full({1}, static_cast<int64_t>(text.size()), at::kLong),
               what + ", lengths")
        ->wait();
    const int64_t longest = std::max<int64_t>(1, lengths.max().item<int64_t>());
    at::Tensor own = at::zeros({longest}, at::kByte),
               all = at::zeros({world() * longest}, at::kByte);
    std::memcpy(own.data_ptr(), text.data(), text.size());
    all_gather(*options_.host, all, own, what)->wait();
    std::vector<std::string> texts;
    for (int64_t r = 0; r < world(); ++r) {
      const auto* begin = static_cast<const char*>(all.data_ptr()) + r * longest;
      texts.emplace_back(begin, begin + lengths[r].item<int64_t>());
    }
    return texts;
  }

  void all_reduce(std::vector<double>& values, ReduceOperation operation,
                  const std::string& what) override {
    at::Tensor flat = at::empty({static_cast<int64_t>(values.size())}, at::kDouble);
    std::memcpy(flat.data_ptr(), values.data(), values.size() * sizeof(double));
    all_reduce(*options_.host, flat, operation, what)->wait();
    std::memcpy(values.data(), flat.data_ptr(), values.size() * sizeof(double));
  }

  double ping(int64_t from, int64_t to, int64_t bytes) override {
    if (rank() != from && rank() != to) return 0;
    at::Tensor load = at::zeros({bytes}, at::kByte), answer = at::zeros({1}, at::kByte);
    const double start = now();
    const auto one = [&](at::Tensor& tensor, bool sends) {
      begin(sends ? "send" : "receive", "link probe", {tensor},
            [&](std::vector<at::Tensor>& tensors) {
              const int peer = static_cast<int>(rank() == from ? to : from);
              return sends ? options_.host->send(tensors, peer, 0)
                           : options_.host->recv(tensors, peer, 0);
            })
          ->wait();
    };
    one(load, rank() == from);
    one(answer, rank() == to);
    return rank() == from ? now() - start : 0;
  }

 private:
  std::chrono::milliseconds limit() const {
    return std::chrono::milliseconds(static_cast<int64_t>(1000 * options_.limit()));
  }
  c10d::Backend& group_of(const at::Tensor& tensor) {
    return tensor.is_cpu() && options_.transport != "gloo" ? *options_.host : *options_.tensors;
  }

  Pending all_reduce(c10d::Backend& group, const at::Tensor& flat, ReduceOperation operation,
                     const std::string& what) {
    return begin("all-reduce", what, {flat}, [&](std::vector<at::Tensor>& tensors) {
      c10d::AllreduceOptions options;
      options.reduceOp = reduce_op(operation);
      options.timeout = limit();
      return group.allreduce(tensors, options);
    });
  }

  Pending all_gather(c10d::Backend& group, const at::Tensor& out, const at::Tensor& in,
                     const std::string& what) {
    // Gloo copies a process's own part into its place; where it lies there already it is told so by
    // another tensor.
    const auto* begin_of_out = static_cast<const char*>(out.data_ptr());
    const auto* begin_of_in = static_cast<const char*>(in.data_ptr());
    const bool inside =
        in.is_cpu() && begin_of_in >= begin_of_out && begin_of_in < begin_of_out + out.nbytes();
    const at::Tensor source = inside ? in.clone() : in;
    return begin("all-gather", what, {out, source}, [&](std::vector<at::Tensor>& tensors) {
      c10d::AllgatherOptions options;
      options.timeout = limit();
      return group._allgather_base(tensors[0], tensors[1], options);
    });
  }

  template <class Start>
  Pending begin(const std::string& operation, const std::string& what,
                std::vector<at::Tensor> tensors, Start start) {
    OperationRecord record;
    record.operation = operation;
    record.what = what;
    record.bytes = static_cast<int64_t>(tensors.front().nbytes());
    record.sequence = options_.log->begin(operation, what, record.bytes);
    record.begun = Clock::now();
    c10::intrusive_ptr<c10d::Work> work;
    try {
      work = start(tensors);
    } catch (const std::exception& error) {
      options_.fail(record, error.what());
    }
    return std::make_unique<GroupPending>(options_, std::move(record), std::move(work),
                                          std::move(tensors));
  }

  GroupOptions options_;
};

}  // namespace

std::unique_ptr<Collectives> make_group_collectives(GroupOptions options) {
  return std::make_unique<GroupCollectives>(std::move(options));
}

}  // namespace polysketch
