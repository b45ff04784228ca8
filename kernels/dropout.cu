// Dropout: the mask from the counter-based generator of alexnet_np/random.py, bit for bit, and its application.
//
// dropout_mask   version 1: a thread one Philox block, four words, four elements. No state: the counter is the position.
// dropout_apply  version 1: a thread an element; serves forward and backward, the map being its own adjoint.
// dropout_seeded version 2: both in one pass with no mask kept, for plans: the backward draws the same numbers again. The
//                seed is read from memory, so that a CUDA graph, whose arguments are fixed, still draws anew each time.
// Parallel over: Philox blocks; elements.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011); Srivastava et al. (2014).

#include "gpu/common.cuh"

struct Words {
    unsigned at[WORDS];
};

__device__ inline Words philox4x32_10(Words c, unsigned key0, unsigned key1) {
    for (int round = 0; round < 10; round++) {
        const unsigned high0 = __umulhi(0xD2511F53u, c.at[0]), low0 = 0xD2511F53u * c.at[0];
        const unsigned high1 = __umulhi(0xCD9E8D57u, c.at[2]), low1 = 0xCD9E8D57u * c.at[2];
        c = {{high1 ^ c.at[1] ^ key0, low1, high0 ^ c.at[3] ^ key1, low0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// The words of elements WORDS * counter on.
__device__ inline Words words_of(unsigned long long counter, unsigned long long seed) {
    return philox4x32_10({{(unsigned)counter, (unsigned)(counter >> 32), 0, 0}}, (unsigned)seed, (unsigned)(seed >> 32));
}

// uniform >= p. The uniform number is a multiple of 2**-24, exact in float32 whatever REAL is.
__device__ inline bool is_kept(unsigned word, float p) {
    return (word >> 8) * 0x1p-24f >= p;
}

// keep[e] is of element WORDS * begin + e.
extern "C" __global__ void dropout_mask(bool* __restrict__ keep, index_t count, float p, unsigned long long begin,
                                        unsigned long long seed) {
    const index_t block = thread_number(), first = WORDS * block;
    if (first >= count) return;
    const Words words = words_of(begin + block, seed);
    for (int i = 0; i < WORDS && first + i < count; i++) keep[first + i] = is_kept(words.at[i], p);
}

extern "C" __global__ void dropout_apply(const real* __restrict__ x, const bool* __restrict__ keep, real* __restrict__ y,
                                         real scale, index_t count) {
    const index_t i = thread_number();
    if (i < count) y[i] = keep[i] ? x[i] * scale : (real)0;
}

extern "C" __global__ void dropout_seeded(const real* __restrict__ x, real* __restrict__ y,
                                          const unsigned long long* __restrict__ seed, float p, real scale,
                                          index_t count) {
    const index_t block = thread_number(), first = WORDS * block;
    if (first >= count) return;
    const Words words = words_of(block, *seed);
    for (int i = 0; i < WORDS && first + i < count; i++) {
        const index_t e = first + i;
        y[e] = is_kept(words.at[i], p) ? x[e] * scale : (real)0;
    }
}
