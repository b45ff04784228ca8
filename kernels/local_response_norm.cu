// Local response normalisation across channels of (N, C, L): y = x / s^beta, s = k + a * (sum of squares in the window).
//
// *_naive  version 1: a thread an element, reading its whole window; the gradient works every s of its window out anew,
//          so it reads the window's square. Takes windows of any size.
// others   version 2: a thread a position and RUN channels of it, walking along the channels with the window in
//          registers, so that each value is read once (and LOW + HIGH more a run). LOW, HIGH and RUN are given at
//          compile time, so that the window is registers and not memory. The sum is taken afresh for each channel, in the same
//          order, rather than updated: nothing drifts.
// Parallel over: (N, C, L); version 2 (N, L) and runs of channels.
// Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.3.

#include "local_response_norm.cuh"

struct Norm {  // its twin is in local_response_norm_cuda.py
    int C, L;       // channels, positions of one
    int low, high;  // the window: channels before and after its own
    real scale, beta, k;
};

#ifndef LOW

// s of channel c; `column` is x[n, 0, l], neighbouring channels are L apart.
__device__ inline real norm(const real* column, int c, const Norm& n) {
    real sum = 0;
    for (int j = max(c - n.low, 0); j <= min(c + n.high, n.C - 1); j++) {
        const real value = column[(index_t)j * n.L];
        sum += value * value;
    }
    return n.k + n.scale * sum;
}

extern "C" __global__ void local_response_norm_forward_naive(const real* __restrict__ x, real* __restrict__ y, Norm n,
                                                             index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int c = i / n.L % n.C;
    y[i] = x[i] * to_minus_beta(norm(x + i - (index_t)c * n.L, c, n), n.beta);
}

extern "C" __global__ void local_response_norm_backward_naive(const real* __restrict__ dy, const real* __restrict__ x,
                                                              real* __restrict__ dx, Norm n, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int c = i / n.L % n.C;
    const index_t start = i - (index_t)c * n.L;
    real spread = 0;  // over the channels whose windows hold c
    for (int j = max(c - n.high, 0); j <= min(c + n.low, n.C - 1); j++) {
        const real s = norm(x + start, j, n);
        spread += dy[start + (index_t)j * n.L] * x[start + (index_t)j * n.L] * to_minus_beta(s, n.beta) / s;
    }
    const real s = norm(x + start, c, n);
    dx[i] = dy[i] * to_minus_beta(s, n.beta) - 2 * n.scale * n.beta * x[i] * spread;
}

#else

#define WINDOW (LOW + HIGH + 1)

// Every value moves down by one and `last` comes in at the end.
template <int SIZE>
__device__ inline void shift(real (&values)[SIZE], real last) {
#pragma unroll
    for (int j = 0; j + 1 < SIZE; j++) values[j] = values[j + 1];
    values[SIZE - 1] = last;
}

__device__ inline real norm(const real (&window)[WINDOW], const Norm& n) {
    real sum = 0;
#pragma unroll
    for (int j = 0; j < WINDOW; j++) sum += window[j] * window[j];
    return n.k + n.scale * sum;
}

// x[n, c, l], and 0 beyond the first and the last channel.
__device__ inline real channel(const real* column, int c, const Norm& n) {
    return c >= 0 && c < n.C ? column[(index_t)c * n.L] : (real)0;
}

extern "C" __global__ void local_response_norm_forward(const real* __restrict__ x, real* __restrict__ y, Norm n,
                                                       index_t positions) {
    const index_t position = thread_number();
    if (position >= positions) return;
    const index_t start = position / n.L * n.C * n.L + position % n.L;
    const int first = blockIdx.y * RUN;
    real window[WINDOW];  // x of channels c - LOW to c + HIGH
#pragma unroll
    for (int j = 1; j < WINDOW; j++) window[j] = channel(x + start, first - LOW + j - 1, n);
#pragma unroll
    for (int c = first; c < first + RUN; c++) {
        if (c >= n.C) return;
        shift(window, channel(x + start, c + HIGH, n));
        y[start + (index_t)c * n.L] = window[LOW] * to_minus_beta(norm(window, n), n.beta);
    }
}

// Walks ahead of the output: at channel `ahead` its term of the sum is made, and dx of channel ahead - LOW is complete.
extern "C" __global__ void local_response_norm_backward(const real* __restrict__ dy, const real* __restrict__ x,
                                                        real* __restrict__ dx, Norm n, index_t positions) {
    const index_t position = thread_number();
    if (position >= positions) return;
    const index_t start = position / n.L * n.C * n.L + position % n.L;
    const int first = blockIdx.y * RUN;
    real window[WINDOW];        // x of channels ahead - LOW to ahead + HIGH
    real terms[WINDOW] = {};    // dy * x * s^(-beta-1) of channels ahead - LOW - HIGH to ahead
    real direct[LOW + 1] = {};  // dy * s^-beta of channels ahead - LOW to ahead
#pragma unroll
    for (int j = 1; j < WINDOW; j++) window[j] = channel(x + start, first - HIGH - LOW + j - 1, n);
#pragma unroll
    for (int ahead = first - HIGH; ahead < first + RUN + LOW; ahead++) {
        const int c = ahead - LOW;
        if (c >= n.C) return;
        shift(window, channel(x + start, ahead + HIGH, n));
        real term = 0, own = 0;
        if (ahead >= 0 && ahead < n.C) {
            const real s = norm(window, n), gradient = dy[start + (index_t)ahead * n.L];
            own = gradient * to_minus_beta(s, n.beta);
            term = own * window[LOW] / s;
        }
        shift(terms, term);
        shift(direct, own);
        if (c < first) continue;
        real spread = 0;
#pragma unroll
        for (int j = 0; j < WINDOW; j++) spread += terms[j];
        dx[start + (index_t)c * n.L] = direct[0] - 2 * n.scale * n.beta * window[0] * spread;
    }
}

#endif
