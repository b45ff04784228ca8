// The dense layer on weights stored in 16 bits: each 64 of an output, side by side, share a scale (a `real`), their
// largest magnitude / 32767, and weight ≈ scale * integer. Half the bytes of float32: with few images, half the time.
//
// linear_int16_pack   a warp a block of 64: the largest by shuffles, then the integers. Rounding is to even, so they are
//                     those of linear_int16_numba.py. A scale is not finite where one of its weights is not.
// linear_int16_rows   for a few images, as linear_rows.cu: a warp an output, VECTOR integers a load, which never lie in
//                     two blocks; their products are summed and scaled together.
// linear_int16_widen  for many: the weights as floats again, for cuBLAS. A thread a weight.
// Parallel over: blocks; outputs (x) and groups of images (y); weights.
// Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
// (2018), sec. 2; Dettmers et al., "8-bit Optimizers via Block-wise Quantization" (2022), for one scale a block.

#include "gpu/common.cuh"
#include "linear_rows.cuh"

#define SHARING 64  // weights that share a scale: two a lane
#define LARGEST 32767

struct __align__(VECTOR == 4 ? 8 : 2) Shorts {
    short at[VECTOR];
};

struct __align__(VECTOR == 4 ? 16 : sizeof(real)) Vector {
    real at[VECTOR];
};

__device__ inline int scales_of(int K) {
    return (K + SHARING - 1) / SHARING;
}

extern "C" __global__ void linear_int16_pack(const real* __restrict__ weight, short* __restrict__ integers,
                                             real* __restrict__ scales, index_t K, index_t count) {
    const index_t block = thread_number() / 32;
    if (block >= count) return;  // all of a warp
    const index_t row = block / scales_of(K) * K, first = block % scales_of(K) * SHARING + threadIdx.x % 32;
    real values[2], most = 0;
    for (int i = 0; i < 2; i++) {
        const index_t k = first + 32 * i;
        values[i] = k < K ? weight[row + k] : (real)0;
        const real size = values[i] < 0 ? -values[i] : values[i];
        most = max(most, size < infinity() ? size : infinity());  // NaN too
    }
    const real scale = warp_max(most) / LARGEST;
    for (int i = 0; i < 2; i++) {
        const index_t k = first + 32 * i;
        const bool good = scale > 0 && scale < infinity();
        const int integer = good ? (int)rint(values[i] / scale) : 0;
        const int cut = integer > LARGEST ? LARGEST : integer < -LARGEST ? -LARGEST : integer;  // a subnormal scale's
        const int sign = !good ? 0 : values[i] > 0 ? 1 : values[i] < 0 ? -1 : 0;  // no weight but zero becomes 0
        if (k < K) integers[row + k] = (short)(cut ? cut : sign);
    }
    if (threadIdx.x % 32 == 0) scales[block] = scale;
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    linear_int16_rows(const real* __restrict__ x, const short* __restrict__ integers, const real* __restrict__ scales,
                      const real* __restrict__ bias, real* __restrict__ y, Rows rows) {
    const int F = rows.F, K = rows.K, lane = threadIdx.x % 32, f = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (f >= F) return;  // all of a warp, so the shuffles below are complete
    const int first = blockIdx.y * IMAGES, images = min(rows.N - first, IMAGES);
    const short* row = integers + (index_t)f * K;
    const real* row_scales = scales + (index_t)f * scales_of(K);
    const real* inputs = x + (index_t)first * K;
    real sums[IMAGES] = {};
#pragma unroll 4
    for (int k = lane * VECTOR; k < K; k += 32 * VECTOR) {
        const Shorts weights = *(const Shorts*)(row + k);
        const real scale = row_scales[k / SHARING];
#pragma unroll
        for (int n = 0; n < IMAGES; n++) {
            if (n >= images) break;
            const Vector values = *(const Vector*)(inputs + (index_t)n * K + k);
            real sum = 0;
#pragma unroll
            for (int i = 0; i < VECTOR; i++) sum += (real)weights.at[i] * values.at[i];
            sums[n] += scale * sum;
        }
    }
#pragma unroll
    for (int n = 0; n < IMAGES; n++) {
        const real value = warp_sum(sums[n]) + (bias ? bias[f] : (real)0);
        if (lane == 0 && n < images) y[(index_t)(first + n) * F + f] = rows.relu && value <= 0 ? (real)0 : value;
    }
}

extern "C" __global__ void linear_int16_widen(const short* __restrict__ integers, const real* __restrict__ scales,
                                              real* __restrict__ weight, index_t K, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    weight[i] = scales[i / K * scales_of(K) + i % K / SHARING] * (real)integers[i];
}
