// The logistic function, y = 1 / (1 + exp(-x)), and its gradient from y.
//
// One version: a thread an element. It reads and writes each value once.
// Parallel over: elements.  Source: LeCun, Bottou, Orr, Müller (1998), sec. 4.4.

#include "gpu/common.cuh"

extern "C" __global__ void sigmoid_forward(const real* __restrict__ x, real* __restrict__ y, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const real e = exp(-fabs(x[i]));  // at most 1: nothing overflows
    y[i] = (x[i] >= 0 ? (real)1 : e) / (1 + e);
}

extern "C" __global__ void sigmoid_backward(const real* __restrict__ dy, const real* __restrict__ y,
                                            real* __restrict__ dx, index_t count) {
    const index_t i = thread_number();
    if (i < count) dx[i] = dy[i] * y[i] * (1 - y[i]);
}
