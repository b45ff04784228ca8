// The dense layer after its product: add the bias, clamp at zero.
//
// linear_finish  one version: a thread an element, in place; bias and ReLU in one pass instead of two.
// Parallel over: (N, F).  Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.1 for the ReLU.

#include "gpu/common.cuh"

extern "C" __global__ void linear_finish(real* __restrict__ y, const real* __restrict__ bias, index_t F, bool relu,
                                         index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const real value = y[i] + (bias ? bias[i % F] : (real)0);
    y[i] = relu && value <= 0 ? (real)0 : value;
}
