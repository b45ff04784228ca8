// ReLU: y = max(x, 0), and its gradient.
//
// One version: a thread an element. It reads and writes each value once, which is all there is to win; where the input
// comes from a product, the pass that adds the bias does it too.
// Parallel over: elements.  Source: Nair and Hinton (2010).

#include "gpu/common.cuh"

extern "C" __global__ void relu_forward(const real* __restrict__ x, real* __restrict__ y, index_t count) {
    const index_t i = thread_number();
    if (i < count) y[i] = x[i] <= 0 ? (real)0 : x[i];  // NaN is not <= 0, so it stays
}

extern "C" __global__ void relu_backward(const real* __restrict__ dy, const real* __restrict__ y, real* __restrict__ dx,
                                         index_t count) {
    const index_t i = thread_number();
    if (i < count) dx[i] = y[i] <= 0 ? (real)0 : dy[i];
}
