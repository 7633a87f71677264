// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace polysketch::test {

/// How far results may lie apart, and why. `relative` means: Euclidean norm of the difference over
/// that of the reference, unless a test says otherwise. Bounds of golden cases come from their
/// manifest.
namespace tolerance {

/// The same sums in another order, fp64: T·2^-53 for T in the hundreds, times the degree for the
/// powers.
inline constexpr double kReordered64 = 1e-10;

/// Central differences in fp64 with step 1e-5: truncation (step², times third derivatives of a
/// degree-8 polynomial) outweighs rounding.
inline constexpr double kCentralDifference = 1e-6;

/// fp32 against fp64: 2^-24 for each rounding; a score loses about sqrt(D) of them, its power
/// `degree` times that, gradients twice.
inline constexpr double kSingle = 1e-4;

/// bf16 against fp64 on the same bf16 inputs: normed vectors, weights and results are rounded to
/// 2^-9 each; powers multiply the error of a score by the degree.
inline constexpr double kBrain = 2e-2;

/// Sketches of degree 8: one more level of vectors rounded to bf16, and twice the degree.
inline constexpr double kBrainDegree8 = 4e-2;

/// Gradients as above for few or narrow rows. A score near zero keeps the absolute error of its
/// rounded vectors, and the first rows give all their weight to one key, so that dO·(v - o) is
/// mostly rounding: a single such row can carry the gradient.
inline constexpr double kBrainFewRows = 0.2;

/// Sums through states of (a·b)² in fp32 against fp64: the R(R+1)/2 features of both signs are
/// added one after another, 8256 of them for R = 128, the widest: sqrt(8256) roundings of 2^-24.
inline constexpr double kSingleStates = 6e-6;

/// The same in bf16: features, states, values and cotangents round to 2^-9 each, independently, and
/// terms of R² features cancel.
inline constexpr double kBrainStates = 2e-2;

/// Two levels of a learned sketch in fp32 against fp64: some ten roundings of 2^-24 for each of a
/// dozen steps forward and back.
inline constexpr double kSingleNetwork = 5e-6;

/// The same with bf16 products: activations, weights and cotangents round to 2^-9 at each of a
/// dozen products.
inline constexpr double kBrainNetwork = 3e-2;

/// Three fp32 numbers of size 1 added up in any order, against fp64: two roundings of 2^-23.
inline constexpr double kThreeSums = 3e-7;

/// Losses of a run in fp32, relative, over 200 steps, whatever the number of processes: gradients
/// are added up in another order, a difference of 2^-24 of each sum that training neither damps
/// nor, in so short a run, multiplies.
inline constexpr double kLossAcrossWorlds = 1e-6;

/// The same bf16 arithmetic in another order: only the last rounding of a result can differ.
inline constexpr double kReorderedBrain = 4e-3;

}  // namespace tolerance
}  // namespace polysketch::test
