// What both normalisations take a sum to: across channels (local_response_norm.cu) and within maps (…_within.cu).
//
// beta = 3/4, everybody's choice, takes a reciprocal square root and a square root instead of pow (THREE_QUARTERS).

#pragma once
#include "gpu/common.cuh"

// s^-beta
__device__ inline real to_minus_beta(real s, real beta) {
#if THREE_QUARTERS
    const real root = rsqrt(s);
    return root * sqrt(root);
#else
    return pow(s, -beta);
#endif
}
