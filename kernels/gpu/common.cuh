// What every .cu shares. gpu/runtime.py compiles each file with these given:
//   REAL   float or double, the dtype of the arrays
//   INDEX  int, or long long where an array is too long for 32-bit indices
//   BLOCK  the threads of a block, where the launcher has no reason for another number
// and with what else the launcher names.
#pragma once

typedef REAL real;
typedef INDEX index_t;

// This thread's number among all threads of a 1-D launch.
__device__ inline index_t thread_number() {
    return (index_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ inline real infinity() {
    return (real)__int_as_float(0x7f800000);
}

// `a op b` over all threads of a 1-D block whose size is a multiple of 32; every thread gets the result. The order of
// the additions is fixed, so the result is the same from run to run.
__device__ inline real warp_sum(real a) {
    for (int step = 16; step > 0; step /= 2) a += __shfl_xor_sync(0xffffffffu, a, step);
    return a;
}

__device__ inline real warp_max(real a) {
    for (int step = 16; step > 0; step /= 2) a = max(a, __shfl_xor_sync(0xffffffffu, a, step));
    return a;
}

// Each warp leaves its own result in shared memory; after the second barrier every warp combines all of them.
__device__ inline real share_between_warps(real of_this_warp, real neutral) {
    __shared__ real of_warps[32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();  // the call before may still be reading
    if (lane == 0) of_warps[warp] = of_this_warp;
    __syncthreads();
    return lane < blockDim.x / 32 ? of_warps[lane] : neutral;
}

__device__ inline real block_sum(real a) {
    return warp_sum(share_between_warps(warp_sum(a), 0));
}

__device__ inline real block_max(real a) {
    return warp_max(share_between_warps(warp_max(a), -infinity()));
}
