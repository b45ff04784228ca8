// Softmax and log-softmax along the middle axis of (outer, classes, inner), and their gradients.
//
// *_threads  version 1: a thread a row, walking its classes. Neighbouring threads read neighbouring values where
//            inner > 1, so there it is also the right version.
// *_blocks   version 2: a block a row (inner = 1): coalesced reads, maximum and sum by warp shuffles.
// Parallel over: rows; version 2 also over classes.  Source: Bridle (1990).

#include "gpu/common.cuh"

extern "C" __global__ void softmax_forward_threads(const real* __restrict__ x, real* __restrict__ y, index_t classes,
                                                   index_t inner, bool logarithm, index_t rows) {
    const index_t row = thread_number();
    if (row >= rows) return;
    const index_t start = row / inner * classes * inner + row % inner;
    real largest = -infinity(), sum = 0;
    for (index_t c = 0; c < classes; c++) largest = max(largest, x[start + c * inner]);
    for (index_t c = 0; c < classes; c++) sum += exp(x[start + c * inner] - largest);
    for (index_t c = 0; c < classes; c++) {
        const real shifted = x[start + c * inner] - largest;
        y[start + c * inner] = logarithm ? shifted - log(sum) : exp(shifted) / sum;
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    softmax_forward_blocks(const real* __restrict__ x, real* __restrict__ y, index_t classes, bool logarithm) {
    const index_t start = blockIdx.x * classes;
    real largest = -infinity(), sum = 0;
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) largest = max(largest, x[start + c]);
    largest = block_max(largest);
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) sum += exp(x[start + c] - largest);
    sum = block_sum(sum);
    const real log_sum = log(sum);
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) {
        const real shifted = x[start + c] - largest;
        y[start + c] = logarithm ? shifted - log_sum : exp(shifted) / sum;
    }
}

// softmax: dx = y * (dy - sum of dy*y).  log-softmax: dx = dy - exp(y) * sum of dy.
extern "C" __global__ void softmax_backward_threads(const real* __restrict__ dy, const real* __restrict__ y,
                                                    real* __restrict__ dx, index_t classes, index_t inner,
                                                    bool logarithm, index_t rows) {
    const index_t row = thread_number();
    if (row >= rows) return;
    const index_t start = row / inner * classes * inner + row % inner;
    real sum = 0;
    for (index_t c = 0; c < classes; c++) {
        const index_t i = start + c * inner;
        sum += logarithm ? dy[i] : dy[i] * y[i];
    }
    for (index_t c = 0; c < classes; c++) {
        const index_t i = start + c * inner;
        dx[i] = logarithm ? dy[i] - exp(y[i]) * sum : y[i] * (dy[i] - sum);
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    softmax_backward_blocks(const real* __restrict__ dy, const real* __restrict__ y, real* __restrict__ dx,
                            index_t classes, bool logarithm) {
    const index_t start = blockIdx.x * classes;
    real sum = 0;
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x)
        sum += logarithm ? dy[start + c] : dy[start + c] * y[start + c];
    sum = block_sum(sum);
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) {
        const index_t i = start + c;
        dx[i] = logarithm ? dy[i] - exp(y[i]) * sum : y[i] * (dy[i] - sum);
    }
}
