// 2-D convolution, version 3: the matrix product of im2col, with the columns never written to memory.
//
// One group is the product (filters) x (window values) · (window values) x (output pixels of the batch). A block computes
// TILE x TILE of it in steps of 8 window values: it copies 8 x TILE weights and 8 x TILE gathered inputs into shared
// memory, and each of its 16 x 16 threads accumulates a square of TILE/16 x TILE/16 outputs in registers, so a value
// read from shared memory serves TILE/16 multiplications. Bias and ReLU are applied on the way out.
//   - While a step is multiplied, the next one is already on its way from memory into registers; two buffers of each
//     kind make one barrier a step enough.
//   - Where a window value lies (channel, row, column: three divisions) is worked out once a step by eight threads.
// TILE (64 or 128) is given at compile time, as THREADS is: 128 does more with each byte, 64 fills the GPU with smaller problems.
//
// Parallel over: pixel tiles (x), filter tiles (y), groups (z).
// Source: Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014), sec. 3; register tiles: Volkov and
// Demmel, "Benchmarking GPUs to Tune Dense Linear Algebra" (2008).

#include "gpu/common.cuh"
#include "conv2d_geometry.cuh"

#define STEP 8                      // window values a step
#define SIDE (TILE / 16)            // outputs a thread computes along either side, in runs of 4 that lie 64 apart
#define LOADS (TILE * STEP / THREADS)  // values of either operand that a thread fetches a step
#define ABOVE (-(1 << 28))          // a row above every image, where values read as zero
#define PAD 4                       // keeps the threads that store one filter's weights off each other's banks

struct __align__(16) Four {
    real at[4];
};

struct Tap {
    int offset, down, across;  // of one window value: from the window's first pixel, in memory and in the image
};

__device__ inline Tap find_tap(int k, int values, const Window& w) {
    if (k >= values) return {0, ABOVE, 0};
    const int c = k / (w.KH * w.KW), down = k / w.KW % w.KH * w.DH, across = k % w.KW * w.DW;
    return {(c * w.H + down) * w.W + across, down, across};
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_implicit(const real* __restrict__ x, const real* __restrict__ weight, const real* __restrict__ bias,
                    real* __restrict__ y, Convolution conv) {
    __shared__ __align__(16) real weights[2][STEP][TILE + PAD];
    __shared__ __align__(16) real inputs[2][STEP][TILE];
    __shared__ Tap taps[2][STEP];

    const int thread = threadIdx.x, across = thread % 16 * 4, down = thread / 16 * 4;
    const Window& w = conv.window;
    const int group = blockIdx.z, filters = conv.F / conv.groups, channels = w.C / conv.groups;
    const int values = channels * w.KH * w.KW, pixels = w.OH * w.OW, steps = (values + STEP - 1) / STEP;
    const index_t outputs = (index_t)conv.N * pixels;

    // The weights this thread fetches: window value thread % 8 of filters thread / 8, + 32, ...
    const int first_filter = blockIdx.y * TILE;
    const real* group_weight = weight + (index_t)group * filters * values;

    // The inputs this thread fetches: window values thread / TILE, + THREADS / TILE, ... of one output pixel.
    const index_t output = (index_t)blockIdx.x * TILE + thread % TILE;
    const int pixel = output % pixels;
    int row = pixel / w.OW * w.SH - w.top, column = pixel % w.OW * w.SW - w.left;
    const index_t first_input = ((output / pixels * w.C + (index_t)group * channels) * w.H + row) * w.W + column;
    if (output >= outputs) row = ABOVE;

    real next_weights[LOADS], next_inputs[LOADS];
    const auto fetch = [&](int step) {
        for (int i = 0; i < LOADS; i++) {
            const int k = step * STEP + thread % STEP, filter = first_filter + thread / STEP + i * (THREADS / STEP);
            next_weights[i] = k < values && filter < filters ? group_weight[(index_t)filter * values + k] : (real)0;
            const Tap tap = taps[step % 2][thread / TILE + i * (THREADS / TILE)];
            const int h = row + tap.down, v = column + tap.across;
            next_inputs[i] = h >= 0 && h < w.H && v >= 0 && v < w.W ? x[first_input + tap.offset] : (real)0;
        }
    };
    const auto store = [&](int step) {
        for (int i = 0; i < LOADS; i++) {
            weights[step % 2][thread % STEP][thread / STEP + i * (THREADS / STEP)] = next_weights[i];
            inputs[step % 2][thread / TILE + i * (THREADS / TILE)][thread % TILE] = next_inputs[i];
        }
    };

    if (thread < 2 * STEP) taps[thread / STEP][thread % STEP] = find_tap(thread, values, w);
    __syncthreads();
    fetch(0);
    store(0);
    __syncthreads();

    real sums[SIDE][SIDE] = {};
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) fetch(step + 1);
#pragma unroll
        for (int k = 0; k < STEP; k++) {
            real a[SIDE], b[SIDE];
#pragma unroll
            for (int run = 0; run < SIDE; run += 4) {
                const Four weight_run = *(const Four*)&weights[step % 2][k][down + run * 16];
                const Four input_run = *(const Four*)&inputs[step % 2][k][across + run * 16];
#pragma unroll
                for (int i = 0; i < 4; i++) a[run + i] = weight_run.at[i], b[run + i] = input_run.at[i];
            }
#pragma unroll
            for (int i = 0; i < SIDE; i++)
#pragma unroll
                for (int j = 0; j < SIDE; j++) sums[i][j] += a[i] * b[j];
        }
        if (step + 1 < steps) store(step + 1);
        if (thread < STEP) taps[step % 2][thread] = find_tap((step + 2) * STEP + thread, values, w);
        __syncthreads();
    }

#pragma unroll
    for (int j = 0; j < SIDE; j++) {
        const index_t to = (index_t)blockIdx.x * TILE + across + j / 4 * 64 + j % 4;
        if (to >= outputs) continue;
        real* image = y + (to / pixels * conv.F + group * filters) * pixels + to % pixels;
#pragma unroll
        for (int i = 0; i < SIDE; i++) {
            const int filter = first_filter + down + i / 4 * 64 + i % 4;
            if (filter >= filters) continue;
            const real value = sums[i][j] + (bias ? bias[group * filters + filter] : (real)0);
            image[(index_t)filter * pixels] = conv.relu && value <= 0 ? (real)0 : value;
        }
    }
}
