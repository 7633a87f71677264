// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

// How an operation gets its implementation: each has a list of named ones in order of preference,
// and the first that fits the tensors at hand is taken. The environment variable POLYSKETCH_OPS
// forces one instead: `aten` for every operation that has one of that name, or
// `polynomial:aten,sketch:cpu` for those named.
//
// An implementation of an operation is a file <operation>_<name>.cpp and its place in the list in
// <operation>.cpp.

namespace polysketch::ops {

/// What all implementations have. An operation adds the functions of its contract.
struct Implementation {
  std::string_view name;  ///< "cpu", "cuda", "aten" (LibTorch calls, any device)
  /// Whether it can serve tensors on a device of this machine at all. Costs nothing.
  bool (*serves)(const at::Device& device);
  /// Takes whatever lies on such a device: the ones behind it in a list are for others.
  bool takes_all = false;
};

/// serves() of LibTorch calls.
inline bool any_device(const at::Device&) { return true; }

/// One operation: knows what may be used of it.
class Operation {
 public:
  Operation(std::string_view name, std::vector<Implementation> preferred);
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  /// False for those that POLYSKETCH_OPS excludes. Throws UserError 78 if the variable names what
  /// does not exist.
  bool permits(std::string_view implementation) const;

  /// Throws UserError 78: what was forced does not take these tensors.
  [[noreturn]] void refuse() const;

  std::string_view name() const { return name_; }
  const std::vector<Implementation>& preferred() const { return preferred_; }

 private:
  std::string_view name_;
  std::vector<Implementation> preferred_;
};

/// T: an Implementation with `bool (*fits)(const Call&)` and more.
template <class T>
class Choice {
 public:
  Choice(std::string_view operation, std::initializer_list<const T*> preferred)
      : preferred_(preferred),
        operation_(operation, std::vector<Implementation>(values(preferred))) {}

  /// The first that may be used and fits the call.
  template <class Call>
  const T& operator()(const Call& call) const {
    for (const T* one : preferred_) {
      if (operation_.permits(one->name) && one->fits(call)) return *one;
    }
    operation_.refuse();
  }

 private:
  static std::vector<Implementation> values(std::initializer_list<const T*> preferred) {
    std::vector<Implementation> all;
    for (const T* one : preferred) all.push_back(*one);
    return all;
  }

  std::vector<const T*> preferred_;
  Operation operation_;
};

/// The implementations that this machine would use for tensors on `device`, of each operation in
/// order of preference, for people: "adamw cpu; polynomial cpu, else aten". Throws UserError 78 if
/// POLYSKETCH_OPS is not understood.
std::string operations_in_use(const at::Device& device);

/// Overrules POLYSKETCH_OPS while it lives; `forced` as there. For tests; not while operations run.
class ForcedOperations {
 public:
  explicit ForcedOperations(const std::string& forced);
  ~ForcedOperations();
  ForcedOperations(const ForcedOperations&) = delete;
  ForcedOperations& operator=(const ForcedOperations&) = delete;

 private:
  const void* before_;
};

}  // namespace polysketch::ops
