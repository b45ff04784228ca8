// 2-D convolution with less arithmetic, stride 1: tiles of M x M outputs from SIDE x SIDE inputs, SIDE = M + R - 1.
//
//   winograd_filters  U = G g Gᵀ of every filter and channel: SIDE² points of (F, C/groups). A thread a filter's channel.
//   winograd_input    V = Bᵀ d B of every channel and tile: SIDE² points of (C, tiles). A thread a channel's tile, those
//                     of a warp side by side in V. Then cuBLAS multiplies: a product for each point and group.
//   winograd_output   y = Aᵀ m A, bias and ReLU. A thread a filter's tile.
//
// A tile whose values are not ordinary is computed as the definition says. What spoils outputs that do not see it: a NaN
// or an infinity (also one that overflowed on the way), after which an output of the tile is not finite; and a value
// SPREAD times its neighbours, which does not cancel to the last bit.
//   winograd_magnitudes   the largest over a pixel's channels. A thread a pixel.
//   winograd_mark     strays[tile] = whether one window of magnitudes is SPREAD times another. A thread a tile.
//   winograd_redo     the outputs of strays once more. A thread an output; of others it ends at once.
//
// M and R are given at compile time; what a matrix multiplies by zero is left out. Parallel over: as said.
// Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), sec. 4.

#include "conv2d_direct.cuh"
#include "conv2d_winograd_matrices.cuh"

#define SIDE (M + R - 1)
#define POINTS (SIDE * SIDE)
#define SPREAD 512  // as on the CPU: conv2d_winograd_strays_numba.py

struct Tile {
    int image, row, column;  // of its first output
};

__device__ inline int tiles_down(const Window& w) {
    return (w.OH + M - 1) / M;
}

__device__ inline int tiles_across(const Window& w) {
    return (w.OW + M - 1) / M;
}

__device__ inline Tile find_tile(const Window& w, int t) {
    const int across = tiles_across(w), of_image = tiles_down(w) * across;
    return {t / of_image, t % of_image / across * M, t % across * M};
}

// to = matrix · from · matrixᵀ
template <int TO, int FROM>
__device__ inline void transform(const double (&matrix)[TO][FROM], const real (&from)[FROM][FROM],
                                 real (&to)[TO][TO]) {
    real half[TO][FROM];
#pragma unroll
    for (int i = 0; i < TO; i++)
#pragma unroll
        for (int j = 0; j < FROM; j++) {
            half[i][j] = 0;
#pragma unroll
            for (int k = 0; k < FROM; k++)
                if (matrix[i][k] != 0) half[i][j] += (real)matrix[i][k] * from[k][j];
        }
#pragma unroll
    for (int i = 0; i < TO; i++)
#pragma unroll
        for (int j = 0; j < TO; j++) {
            to[i][j] = 0;
#pragma unroll
            for (int k = 0; k < FROM; k++)
                if (matrix[j][k] != 0) to[i][j] += half[i][k] * (real)matrix[j][k];
        }
}

extern "C" __global__ void winograd_filters(const real* __restrict__ weight, real* __restrict__ u, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    constexpr double matrix[SIDE][R] = G;
    real taps[R][R], points[SIDE][SIDE];
#pragma unroll
    for (int k = 0; k < R * R; k++) taps[k / R][k % R] = weight[i * R * R + k];
    transform(matrix, taps, points);
#pragma unroll
    for (int p = 0; p < POINTS; p++) u[p * count + i] = points[p / SIDE][p % SIDE];
}

extern "C" __global__ void winograd_input(const real* __restrict__ x, real* __restrict__ v, Convolution conv,
                                          index_t tiles, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const Window& w = conv.window;
    const Tile tile = find_tile(w, i % tiles);
    const real* plane = x + ((index_t)tile.image * w.C + i / tiles) * w.H * w.W;
    constexpr double matrix[SIDE][SIDE] = BT;
    real inputs[SIDE][SIDE], points[SIDE][SIDE];
#pragma unroll
    for (int a = 0; a < SIDE; a++)
#pragma unroll
        for (int b = 0; b < SIDE; b++) {
            const int row = tile.row - w.top + a, column = tile.column - w.left + b;
            const bool inside = row >= 0 && row < w.H && column >= 0 && column < w.W;
            inputs[a][b] = inside ? plane[row * w.W + column] : (real)0;
        }
    transform(matrix, inputs, points);
#pragma unroll
    for (int p = 0; p < POINTS; p++) v[p * count + i] = points[p / SIDE][p % SIDE];
}

extern "C" __global__ void winograd_output(const real* __restrict__ products, const real* __restrict__ bias,
                                           real* __restrict__ y, unsigned char* __restrict__ strays, Convolution conv,
                                           index_t tiles, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const Window& w = conv.window;
    const int f = i / tiles, t = i % tiles;
    const Tile tile = find_tile(w, t);
    constexpr double matrix[M][SIDE] = AT;
    real points[SIDE][SIDE], outputs[M][M];
#pragma unroll
    for (int p = 0; p < POINTS; p++) points[p / SIDE][p % SIDE] = products[p * count + i];
    transform(matrix, points, outputs);
    real* plane = y + ((index_t)tile.image * conv.F + f) * w.OH * w.OW;
    bool finite = true;
#pragma unroll
    for (int a = 0; a < M; a++)
#pragma unroll
        for (int b = 0; b < M; b++) {
            const int row = tile.row + a, column = tile.column + b;
            const real value = outputs[a][b] + (bias ? bias[f] : (real)0);
            finite = finite && value < infinity() && value > -infinity();  // false for NaN
            if (row < w.OH && column < w.OW) plane[row * w.OW + column] = conv.relu && value <= 0 ? (real)0 : value;
        }
    if (!finite) strays[t] = 1;  // whoever writes it writes this
}

extern "C" __global__ void winograd_magnitudes(const real* __restrict__ x, real* __restrict__ magnitudes,
                                               Convolution conv, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const index_t pixels = (index_t)conv.window.H * conv.window.W;
    const real* pixel = x + i / pixels * conv.window.C * pixels + i % pixels;
    real most = 0;
    for (int c = 0; c < conv.window.C; c++) {
        const real value = pixel[c * pixels];
        most = max(most, value < 0 ? -value : value);
    }
    magnitudes[i] = most;
}

extern "C" __global__ void winograd_mark(const real* __restrict__ magnitudes, unsigned char* __restrict__ strays,
                                         Convolution conv, index_t tiles) {
    const index_t t = thread_number();
    if (t >= tiles) return;
    const Window& w = conv.window;
    const Tile tile = find_tile(w, t);
    const real* plane = magnitudes + (index_t)tile.image * w.H * w.W;
    real largest = 0, smallest = infinity();
#pragma unroll 1
    for (int k = 0; k < M * M; k++) {
        const int oh = tile.row + k / M, ow = tile.column + k % M;
        real window = 0;
#pragma unroll 1
        for (int tap = 0; tap < R * R; tap++) {
            const int row = oh - w.top + tap / R, column = ow - w.left + tap % R;
            const bool inside = row >= 0 && row < w.H && column >= 0 && column < w.W;
            window = max(window, inside ? plane[row * w.W + column] : (real)0);
        }
        largest = max(largest, window);
        if (window > 0 && window < smallest && oh < w.OH && ow < w.OW) smallest = window;
    }
    strays[t] = largest > SPREAD * smallest;
}

extern "C" __global__ void winograd_redo(const real* __restrict__ x, const real* __restrict__ weight,
                                         const real* __restrict__ bias, real* __restrict__ y,
                                         const unsigned char* __restrict__ strays, Convolution conv, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const Window& w = conv.window;
    const int across = tiles_across(w), row = i / w.OW % w.OH / M, column = i % w.OW / M;
    const index_t image = i / (w.OW * w.OH) / conv.F;
    if (strays[(image * tiles_down(w) + row) * across + column]) y[i] = convolved(x, weight, bias, conv, i);
}
