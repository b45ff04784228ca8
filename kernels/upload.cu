// A few numbers from the host into device memory, as a kernel's argument.
//
// One version: a thread a word. A launch copies its arguments, so the host may change the numbers at once: no page-locked
// memory, no event, no waiting. A training plan sends its learning rates and dropout's seeds so, before each CUDA graph.
// Parallel over: words.

#include "common.cuh"

#define WORDS 64  // as in upload_cuda.py

struct Chunk {
    unsigned long long at[WORDS];
};

extern "C" __global__ void __launch_bounds__(64)
    upload(unsigned long long* __restrict__ to, Chunk chunk, index_t first, index_t count) {
    if (threadIdx.x < count) to[first + threadIdx.x] = chunk.at[threadIdx.x];
}
