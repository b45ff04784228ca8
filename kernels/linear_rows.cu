// The dense layer for a few images: y[n, f] = x[n, :] · weight[f, :] + bias[f], clamped at zero where `relu`.
//
// With one image a product is no product any more: each weight is read once and used once, and reading is all the work.
// One version: a warp an output, its lanes side by side along the row of weights, VECTOR values a load, then a shuffle.
// The row serves up to IMAGES images on the way, so their weights are read once. Bias and ReLU cost nothing extra.
// VECTOR (4, or 1 where rows are not so aligned) and IMAGES (1 to 4) are given at compile time, for registers.
// Parallel over: outputs (x), groups of images (y).
// Source: Bell and Garland, "Implementing Sparse Matrix-Vector Multiplication on Throughput-Oriented Processors" (2009),
// sec. 3.2, for a warp a row.

#include "gpu/common.cuh"
#include "linear_rows.cuh"

struct __align__(VECTOR == 4 ? 16 : sizeof(real)) Vector {
    real at[VECTOR];
};

extern "C" __global__ void __launch_bounds__(BLOCK)
    linear_rows(const real* __restrict__ x, const real* __restrict__ weight, const real* __restrict__ bias,
                real* __restrict__ y, Rows rows) {
    const int F = rows.F, K = rows.K, lane = threadIdx.x % 32, f = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (f >= F) return;  // all of a warp, so the shuffles below are complete
    const int first = blockIdx.y * IMAGES, images = min(rows.N - first, IMAGES);
    const real* row = weight + (index_t)f * K;
    const real* inputs = x + (index_t)first * K;
    real sums[IMAGES] = {};
#pragma unroll 4
    for (int k = lane * VECTOR; k < K; k += 32 * VECTOR) {
        const Vector weights = *(const Vector*)(row + k);
#pragma unroll
        for (int n = 0; n < IMAGES; n++) {
            if (n >= images) break;
            const Vector values = *(const Vector*)(inputs + (index_t)n * K + k);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) sums[n] += weights.at[i] * values.at[i];
        }
    }
#pragma unroll
    for (int n = 0; n < IMAGES; n++) {
        const real value = warp_sum(sums[n]) + (bias ? bias[f] : (real)0);
        if (lane == 0 && n < images) y[(index_t)(first + n) * F + f] = rows.relu && value <= 0 ? (real)0 : value;
    }
}
