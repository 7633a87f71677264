// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "support/cuda_module.hpp"

namespace polysketch::kernels::cuda {

/// Loss of each row and, if asked for, the gradient in place of the logits and its column sums
/// (contract: CudaCrossEntropy). Sums in fp32; one pass over the logits for the loss, one more for
/// the gradient, which finds them in the cache.
/// The result does not depend on timing: no atomic additions. Enqueues on `stream` and returns at
/// once.
cudaError_t cross_entropy(const CudaCrossEntropy& arguments, cudaStream_t stream);

}  // namespace polysketch::kernels::cuda
