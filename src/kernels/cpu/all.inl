// SPDX-License-Identifier: Apache-2.0
// Every kernel, for the instruction set that the including file has chosen by pragma, in the
// namespace POLYSKETCH_ISA_NAMESPACE. The compiler may not see a standard header after the pragma:
// an inline function of theirs that is compiled for AVX-512 here could be the copy that the linker
// keeps for the whole program.

namespace polysketch::kernels::POLYSKETCH_ISA_NAMESPACE {
// The order matters.
// clang-format off
#include "kernels/cpu/vector.inl"
#include "kernels/cpu/layer_norm.inl"
#include "kernels/cpu/glu.inl"
#include "kernels/cpu/heads.inl"
#include "kernels/cpu/cross_entropy.inl"
#include "kernels/cpu/elementwise.inl"
#include "kernels/cpu/instantiate.inl"
// clang-format on
}  // namespace polysketch::kernels::POLYSKETCH_ISA_NAMESPACE
