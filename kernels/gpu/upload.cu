// A few numbers from the host into device memory, as a kernel's argument.
//
// One version: a thread a word. A launch copies its arguments, so the host may change the numbers at once: no page-locked
// memory, no event, no waiting. A training plan sends its learning rates and dropout's seeds so, before each CUDA graph.
// Parallel over: words.

#include "gpu/common.cuh"

struct Chunk {  // its twin is in upload.py
    unsigned long long at[WORDS];
};

extern "C" __global__ void __launch_bounds__(WORDS)
    upload(unsigned long long* __restrict__ to, Chunk chunk, index_t first, index_t count) {
    if (threadIdx.x < count) to[first + threadIdx.x] = chunk.at[threadIdx.x];
}
