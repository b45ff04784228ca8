// The hyperbolic tangent, y = tanh(x), and its gradient from y.
//
// One version: a thread an element. It reads and writes each value once.
// Parallel over: elements.  Source: LeCun, Bottou, Orr, Müller (1998), sec. 4.4.

#include "gpu/common.cuh"

extern "C" __global__ void tanh_forward(const real* __restrict__ x, real* __restrict__ y, index_t count) {
    const index_t i = thread_number();
    if (i < count) y[i] = tanh(x[i]);
}

extern "C" __global__ void tanh_backward(const real* __restrict__ dy, const real* __restrict__ y,
                                         real* __restrict__ dx, index_t count) {
    const index_t i = thread_number();
    if (i < count) dx[i] = dy[i] * (1 - y[i] * y[i]);
}
