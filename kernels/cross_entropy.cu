// Softmax cross-entropy of logits (N, C, L) against coefficients T (N, C, L), and its gradient.
//
//     loss[n,l] = -sum over c of T*q,  q = logits - max - log sum exp;   dlogits = dy * (exp(q) * sum of T - T)
//
// One version: a block a row (n, l); softmax, logarithm and the sum over classes in one launch, and nothing of it is
// kept: the gradient computes q again, which is cheaper than storing it.
// Parallel over: rows and classes.  Source: Goodfellow, Bengio, Courville (2016), sec. 6.2.2.3.

#include "common.cuh"

// q = logits - the result, for the row that starts at x with `inner` between its classes.
__device__ inline real log_sum_exp(const real* x, index_t classes, index_t inner, real* largest) {
    real top = -infinity(), sum = 0;
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) top = max(top, x[c * inner]);
    *largest = top = block_max(top);
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) sum += exp(x[c * inner] - top);
    return log(block_sum(sum));
}

extern "C" __global__ void __launch_bounds__(256)
    cross_entropy_forward(const real* __restrict__ logits, const real* __restrict__ coefficients, real* __restrict__ losses,
                          index_t classes, index_t inner) {
    const index_t row = blockIdx.x, start = row / inner * classes * inner + row % inner;
    real largest, loss = 0;
    const real log_sum = log_sum_exp(logits + start, classes, inner, &largest);
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) {
        const real t = coefficients[start + c * inner];
        if (t != 0) loss -= t * (logits[start + c * inner] - largest - log_sum);  // 0 * -inf counts nothing
    }
    loss = block_sum(loss);
    if (threadIdx.x == 0) losses[row] = loss;
}

// dy is one value a row, or one for all of them (dy_step = 0).
extern "C" __global__ void __launch_bounds__(256)
    cross_entropy_backward(const real* __restrict__ dy, const real* __restrict__ logits,
                           const real* __restrict__ coefficients, real* __restrict__ dlogits, index_t classes,
                           index_t inner, int dy_step) {
    const index_t row = blockIdx.x, start = row / inner * classes * inner + row % inner;
    real largest, mass = 0;
    const real log_sum = log_sum_exp(logits + start, classes, inner, &largest);
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) mass += coefficients[start + c * inner];
    mass = block_sum(mass);
    const real scale = dy[row * dy_step];
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) {
        const index_t i = start + c * inner;
        dlogits[i] = scale * (exp(logits[i] - largest - log_sum) * mass - coefficients[i]);
    }
}
