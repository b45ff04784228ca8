// For float32 products on tensor cores that keep float32's accuracy (gemm_cuda.py): a value as the sum of two TF32 ones.
//
// TF32 has float32's exponent and 10 fraction bits. high = the value rounded to TF32; low = the rest, rounded likewise:
// together they keep 22 of the 24 significant bits at worst and usually all, and a·b is high·high + high·low + low·high
// but for a term of 2**-22 of it. Rounding is to nearest, half away from zero, as the cvt.rna.tf32.f32 instruction.
//
// One version: a thread an element; memory traffic is all it costs.
// Parallel over: elements.  Source: Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores" (2022), sec. 3.

#include "gpu/common.cuh"

__device__ inline float round_to_tf32(float a) {
    const unsigned bits = __float_as_uint(a);
    unsigned rounded = (bits + 0x1000u) & 0xffffe000u;
    if ((rounded & 0x7f800000u) == 0x7f800000u) rounded = bits & 0xffffe000u;  // never up to infinity; infinity itself stays
    return a == a ? __uint_as_float(rounded) : a;
}

extern "C" __global__ void gemm_tf32_split(const float* __restrict__ x, float* __restrict__ high, float* __restrict__ low,
                                      index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const float rounded = round_to_tf32(x[i]);
    const float rest = x[i] - rounded;
    high[i] = rounded;
    low[i] = rest == rest ? round_to_tf32(rest) : 0.0f;  // infinity and NaN travel in `high` alone
}
