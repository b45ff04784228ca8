// 2-D convolution, version 1, the naive one: a thread an output, walking its whole window.
//
// Every input value is read F*KH*KW times, every weight N*OH*OW times, and only the caches help.
// Parallel over: outputs.

#include "conv2d_direct.cuh"

extern "C" __global__ void conv2d_direct(const real* __restrict__ x, const real* __restrict__ weight,
                                         const real* __restrict__ bias, real* __restrict__ y, Convolution conv,
                                         index_t count) {
    const index_t i = thread_number();
    if (i < count) y[i] = convolved(x, weight, bias, conv, i);
}
