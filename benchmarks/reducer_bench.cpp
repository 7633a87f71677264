// SPDX-License-Identifier: Apache-2.0
// Our gradient buckets against c10d::Reducer of LibTorch (DistributedDataParallel): the same
// backward pass, the same bucket layout, two processes over Gloo, in turn. Then how much of the
// exchanges is hidden behind a backward pass that takes longer than they do and leaves the
// processor to them, as a GPU would. Prints two lines.
//
//   reducer_bench [ROUNDS]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "distributed/gradient_reducer.hpp"
#include "distributed/world.hpp"
#include "support/median.hpp"

namespace {

using namespace polysketch;
constexpr int kWorld = 2, kLayers = 16;
constexpr int64_t kWidth = 512, kRows = 2048;

struct ReadyHook : torch::autograd::FunctionPostHook {
  std::function<void()> ready;
  explicit ReadyHook(std::function<void()> f) : ready(std::move(f)) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list&) override {
    ready();
    return outputs;
  }
};

struct Layers {
  std::vector<at::Tensor> weights;
  at::Tensor input;
  explicit Layers(int rank) {
    at::manual_seed(7 + rank);
    input = at::randn({kRows, kWidth});
    for (int i = 0; i < kLayers; ++i)
      weights.push_back((at::randn({kWidth, kWidth}) / 22.6).set_requires_grad(true));
  }
  void backward() {
    at::Tensor x = input;
    for (const at::Tensor& weight : weights) x = x.matmul(weight).tanh();
    x.sum().backward();
  }
};

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void run(int rank, int rounds, uint16_t port) {
  at::set_num_threads(1);
  Place place;
  place.rank = place.local_rank = rank;
  place.world = place.local_world = kWorld;
  place.port = port;
  place.source = "bench";
  const auto world = World::join({.place = place, .config = {}, .device = at::kCPU});

  // Ours: gradients are views of the flat buffer, as in training.
  Layers ours(rank);
  Parameters parameters;
  for (int i = 0; i < kLayers; ++i)
    parameters.add(std::to_string(i), {kWidth, kWidth}, Initializer::zeros, true);
  parameters.allocate(at::kCPU, at::kFloat, at::kFloat, {rank, kWorld, 4 * kWidth * kWidth, false});
  GradientReducer reducer(parameters, world->collectives(), ReduceType::fp32, false);
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators;
  for (size_t i = 0; i < ours.weights.size(); ++i) {
    ours.weights[i].mutable_grad() = parameters.gradient(i);
    accumulators.push_back(torch::autograd::impl::grad_accumulator(ours.weights[i]));
    accumulators.back()->add_post_hook(
        std::make_unique<ReadyHook>([&reducer, i] { reducer.ready(i); }));
  }

  // LibTorch's: the same four layers a bucket.
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port + 1);
  options.isServer = rank == 0;
  options.waitWorkers = false;
  auto store = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
  auto gloo_options = c10d::ProcessGroupGloo::Options::create();
  gloo_options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
      c10::make_intrusive<c10d::PrefixStore>("gloo", store), rank, kWorld, gloo_options);
  auto group = c10::make_intrusive<c10d::ProcessGroup>(
      c10::make_intrusive<c10d::PrefixStore>("group", store), rank, kWorld);
  group->setBackend(at::kCPU, c10d::ProcessGroup::GLOO, gloo);
  group->setDefaultBackend(c10d::ProcessGroup::GLOO);
  group->setGroupName("bench");
  Layers theirs(rank);
  std::vector<std::vector<size_t>> buckets;
  for (int i = kLayers; i > 0; i -= 4) {
    const auto last = static_cast<size_t>(i);
    buckets.push_back({last - 1, last - 2, last - 3, last - 4});
  }
  c10d::Reducer other(theirs.weights, buckets, group, std::vector<bool>(kLayers, false), 4 << 20,
                      false, /*gradient_as_bucket_view=*/true, {}, 4 << 20, false, false,
                      {4 << 20});

  std::vector<double> own_seconds, other_seconds, ratios;
  for (int round = -2; round < rounds; ++round) {
    world->collectives().all_gather_text("", "start together");
    const double a = seconds_of([&] {
      parameters.flat_gradient().zero_();
      reducer.begin();
      ours.backward();
      reducer.finish();
    });
    world->collectives().all_gather_text("", "start together");
    const double b = seconds_of([&] {
      for (at::Tensor& weight : theirs.weights) {
        if (weight.grad().defined()) weight.mutable_grad().zero_();
      }
      other.prepare_for_backward({});
      theirs.backward();
    });
    if (round < 0) continue;
    own_seconds.push_back(a);
    other_seconds.push_back(b);
    ratios.push_back(a / b);
  }
  if (rank == 0) {
    fmt::print(
        "{} layers of {} x {}, {} processes, {} rounds in turn: buckets {:.4f} s, c10d::Reducer "
        "{:.4f} s (medians); median of ratios "
        "{:.3f}; "
        "hidden {:.2f}\n",
        kLayers, kWidth, kWidth, kWorld, rounds, median(own_seconds), median(other_seconds),
        median(ratios), reducer.times().hidden_share());
  }
  world->collectives().all_gather_text("", "both are done");

  // One layer a bucket, 32 of them; each layer "computes" for 20 ms.
  Parameters many;
  for (int i = 0; i < 32; ++i)
    many.add(std::to_string(i), {kWidth, kWidth}, Initializer::zeros, true);
  many.allocate(at::kCPU, at::kFloat, at::kFloat, {rank, kWorld, kWidth * kWidth, false});
  GradientReducer simulated(many, world->collectives(), ReduceType::fp32, false);
  std::vector<double> shares, exchanging, exposed;
  for (int round = -1; round < 7; ++round) {
    simulated.begin();
    for (size_t i = 32; i-- > 0;) {
      ::usleep(20'000);
      simulated.ready(i);
    }
    simulated.finish();
    if (round < 0) continue;
    shares.push_back(simulated.times().hidden_share());
    exchanging.push_back(simulated.times().communication);
    exposed.push_back(simulated.times().exposed);
  }
  if (rank == 0) {
    fmt::print(
        "simulated backward of 0.64 s, 32 buckets of 1 MiB: exchanges {:.4f} s, exposed {:.4f} s, "
        "hidden {:.3f} (medians of 7)\n",
        median(exchanging), median(exposed), median(shares));
  }
  world->collectives().all_gather_text("", "both are done");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 21;
  const auto port = static_cast<uint16_t>(20000 + 2 * (::getpid() % 20000));
  const pid_t child = ::fork();
  run(child == 0 ? 1 : 0, rounds, port);
  if (child == 0) std::_Exit(0);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}
