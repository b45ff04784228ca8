// Average pooling, and its gradient. What a window's sum is divided by follows from the rule, as torch has it.
//
// avg_pool2d_forward   version 1: a thread an output, walking its window in row order.
// avg_pool2d_backward  version 1: a thread an input pixel, gathering its share from every window that holds it.
// Parallel over: (N, C, OH, OW) forward, (N, C, H, W) backward.
// Source: LeCun, Bottou, Bengio, Haffner (1998), sec. II.A; torch's aten/src/ATen/native/cuda/AveragePool2d.cu, divisors.

#include "gpu/common.cuh"
#include "gpu/window.cuh"

struct Rule {  // its twin is in avg_pool2d_cuda.py
    int include_pad;  // whether places of the window in the padding count
    int divisor;      // 0: as many as the pixels
};

// One side of a window that starts at `start`: how many of its places count.
__device__ inline int counted(int start, int kernel, int size, int padding, const Rule& rule) {
    const int stop = min(start + kernel, size + (rule.include_pad ? padding : 0));
    return stop - (rule.include_pad ? start : max(start, 0));
}

__device__ inline real divisor_of(int oh, int ow, const Window& w, const Rule& rule) {
    if (rule.divisor) return rule.divisor;
    return (real)counted(oh * w.SH - w.top, w.KH, w.H, w.top, rule) *
           (real)counted(ow * w.SW - w.left, w.KW, w.W, w.left, rule);
}

extern "C" __global__ void avg_pool2d_forward(const real* __restrict__ x, real* __restrict__ y, Window w, Rule rule,
                                              index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int ow = i % w.OW, oh = i / w.OW % w.OH;
    const real* plane = x + i / (w.OW * w.OH) * w.H * w.W;
    const int top = oh * w.SH - w.top, left = ow * w.SW - w.left;
    real sum = 0;
    for (int row = max(top, 0); row < min(top + w.KH, w.H); row++)
        for (int column = max(left, 0); column < min(left + w.KW, w.W); column++) sum += plane[row * w.W + column];
    y[i] = sum / divisor_of(oh, ow, w, rule);
}

extern "C" __global__ void avg_pool2d_backward(const real* __restrict__ dy, real* __restrict__ dx, Window w, Rule rule,
                                               index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const real* plane = dy + i / (w.W * w.H) * w.OH * w.OW;
    real sum = 0;
    each_window_over(i / w.W % w.H, i % w.W, w, [&](int, int output) {
        sum += plane[output] / divisor_of(output / w.OW, output % w.OW, w, rule);
    });
    dx[i] = sum;
}
