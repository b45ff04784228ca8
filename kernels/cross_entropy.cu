// Softmax cross-entropy of logits (N, C, L) against coefficients T (N, C, L), and its gradient.
//
//     loss[n,l] = -sum over c of T*q,  q = logits - max - log sum exp;   dlogits = dy * (exp(q) * sum of T - T)
//
// cross_entropy_forward, _backward  version 1: a block a row (n, l); softmax, logarithm and the sum over classes in one
//                     launch, and nothing of it is kept: the gradient computes q again, which is cheaper than storing it.
// cross_entropy_step  version 2, for training plans: from class indices (L = 1), with T never written to memory, the loss
//                     and its gradient in one launch.
// Parallel over: rows and classes.  Source: Goodfellow, Bengio, Courville (2016), sec. 6.2.2.3.

#include "gpu/common.cuh"

// q = logits - the result, for the row that starts at x with `inner` between its classes.
__device__ inline real log_sum_exp(const real* x, index_t classes, index_t inner, real* largest) {
    real top = -infinity(), sum = 0;
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) top = max(top, x[c * inner]);
    *largest = top = block_max(top);
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) sum += exp(x[c * inner] - top);
    return log(block_sum(sum));
}

extern "C" __global__ void __launch_bounds__(BLOCK)
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
extern "C" __global__ void __launch_bounds__(BLOCK)
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

// T[c] = (1 - smoothing) * [c = target] + smoothing / classes, whose sum is 1; both results are multiplied by `scale`.
// A target that is no class gives its row the loss NaN and the gradient 0.
extern "C" __global__ void __launch_bounds__(BLOCK)
    cross_entropy_step(const real* __restrict__ logits, const long long* __restrict__ targets, real* __restrict__ losses,
                       real* __restrict__ dlogits, index_t classes, real smoothing, real scale) {
    const index_t row = blockIdx.x, start = row * classes;
    const long long target = targets[row];
    const bool valid = target >= 0 && target < classes;
    const real smooth = smoothing / classes;
    real largest, loss = 0;
    const real log_sum = log_sum_exp(logits + start, classes, 1, &largest);
    for (index_t c = threadIdx.x; c < classes; c += blockDim.x) {
        const real q = logits[start + c] - largest - log_sum, t = (c == target ? 1 - smoothing : (real)0) + smooth;
        if (t != 0) loss -= t * q;  // 0 * -inf counts nothing
        dlogits[start + c] = valid ? scale * (exp(q) - t) : (real)0;
    }
    loss = block_sum(loss);
    if (threadIdx.x == 0) losses[row] = valid ? scale * loss : infinity() * 0;
}
