// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distributed/operation_log.hpp"

namespace polysketch {

enum class ReduceOperation { sum, min, max };

/// An exchange under way. Its tensors must not be touched before wait().
class PendingExchange {
 public:
  virtual ~PendingExchange() = default;
  /// Returns when it is done; on a GPU the current stream waits, not the host. Throws UserError 76.
  virtual void wait() = 0;
  /// Seconds during which it was under way, known after wait(): of steady_clock on the CPU. {0, 0}
  /// where that is not known (GPU).
  virtual std::pair<double, double> span() const = 0;
};
using Pending = std::unique_ptr<PendingExchange>;

/// Exchanges among the processes of a run, over c10d: Gloo for tensors on the CPU, NCCL for those
/// on a GPU. Every process calls the same ones in the same order. `what` names the exchange in
/// messages ("gradients 3").
///
/// An exchange that fails or takes longer than allowed throws UserError 76 that names step,
/// exchange and the process to blame. After that nothing more can be exchanged and the process
/// should end.
///
/// A process alone exchanges nothing: every call gives it its own part.
class Collectives {
 public:
  virtual ~Collectives() = default;

  virtual int64_t rank() const = 0;
  virtual int64_t world() const = 0;

  /// In place; `flat` is contiguous.
  virtual Pending all_reduce(const at::Tensor& flat, ReduceOperation operation,
                             const std::string& what) = 0;
  /// out [W · n] <- in [n] of each process, in order of rank. `in` may be its own part of `out`.
  virtual Pending all_gather(const at::Tensor& out, const at::Tensor& in,
                             const std::string& what) = 0;
  /// The rank-th part [n] of in [W · n] becomes the sum over processes of that part; the rest of
  /// `in` is undefined afterwards. Returns the same sums, bit for bit, as all_reduce on the CPU,
  /// where it is one (Gloo's own is slower and adds up in another order).
  virtual Pending reduce_scatter(const at::Tensor& in, const std::string& what) = 0;
  virtual Pending broadcast(const at::Tensor& flat, int64_t root, const std::string& what) = 0;

  /// A text of each process, in order of rank. On the host, whatever the device.
  virtual std::vector<std::string> all_gather_text(const std::string& text,
                                                   const std::string& what) = 0;
  /// Element by element over the processes, on the host.
  virtual void all_reduce(std::vector<double>& values, ReduceOperation operation,
                          const std::string& what) = 0;
  /// Sends `bytes` from one process to another, over the host's network, and a byte back; the
  /// others return at once. Seconds on `from`, 0 elsewhere.
  virtual double ping(int64_t from, int64_t to, int64_t bytes) = 0;

  virtual const std::string& transport() const = 0;  ///< of tensors: "gloo", "nccl", "none"
};

/// Of a process alone.
std::unique_ptr<Collectives> make_lone_collectives();

}  // namespace polysketch
