// Max pooling with overlapping windows, and its gradient.
//
// max_pool2d_forward   version 1: a thread an output, walking its window in row order. Neighbouring windows overlap, so
//                      most reads come from the L1 cache. The winner's position is kept as a switch (1 byte, or 4),
//                      unless no backward will ask for it (`switches` null).
// max_pool2d_backward  version 1: a thread an input pixel, gathering dy from every window whose switch points at it.
// max_pool2d_backward_to_all   the same, but from every window whose maximum it equals: ties as cuda-convnet has them.
// Parallel over: (N, C, OH, OW) forward, (N, C, H, W) backward.
// Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.4; switches: Zeiler and Fergus (2014), sec. 2.1.

#include "gpu/common.cuh"
#include "gpu/window.cuh"

// The first position of a window that lies inside the input, where it starts at `start` < 0 in steps of `dilation`.
__device__ inline int first_inside(int start, int dilation) {
    return start < 0 ? (-start + dilation - 1) / dilation : 0;
}

extern "C" __global__ void max_pool2d_forward(const real* __restrict__ x, real* __restrict__ y, SWITCH* __restrict__ switches,
                                              Window w, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int ow = i % w.OW, oh = i / w.OW % w.OH;
    const real* plane = x + i / (w.OW * w.OH) * w.H * w.W;
    const int row = oh * w.SH - w.top, column = ow * w.SW - w.left;
    const int first_kh = first_inside(row, w.DH), first_kw = first_inside(column, w.DW);
    real largest = -infinity();
    int winner = first_kh * w.KW + first_kw;  // stays where all of the window is -inf, as in torch
    for (int kh = first_kh; kh < w.KH && row + kh * w.DH < w.H; kh++)
        for (int kw = first_kw; kw < w.KW && column + kw * w.DW < w.W; kw++) {
            const real candidate = plane[(row + kh * w.DH) * w.W + column + kw * w.DW];
            if (candidate > largest || candidate != candidate) {  // the first of equals; NaN over everything
                largest = candidate;
                winner = kh * w.KW + kw;
            }
        }
    y[i] = largest;
    if (switches) switches[i] = winner;
}

extern "C" __global__ void max_pool2d_backward(const real* __restrict__ dy, const SWITCH* __restrict__ switches,
                                               real* __restrict__ dx, Window w, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const index_t plane = i / (w.W * w.H) * w.OH * w.OW;
    real sum = 0;
    each_window_over(i / w.W % w.H, i % w.W, w, [&](int tap, int output) {
        if (switches[plane + output] == tap) sum += dy[plane + output];
    });
    dx[i] = sum;
}

extern "C" __global__ void max_pool2d_backward_to_all(const real* __restrict__ dy, const real* __restrict__ x,
                                                      const real* __restrict__ y, const SWITCH* __restrict__ switches,
                                                      real* __restrict__ dx, Window w, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const index_t plane = i / (w.W * w.H) * w.OH * w.OW;
    const real mine = x[i];
    real sum = 0;
    each_window_over(i / w.W % w.H, i % w.W, w, [&](int tap, int output) {
        // the switch alone finds a NaN
        if (y[plane + output] == mine || switches[plane + output] == tap) sum += dy[plane + output];
    });
    dx[i] = sum;
}
