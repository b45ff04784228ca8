// Adaptive average pooling: each output the mean of its own window, rows floor(i*H/OH) to ceil((i+1)*H/OH).
//
// adaptive_avg_pool2d_forward   version 1: a thread an output.
// adaptive_avg_pool2d_backward  version 1: a thread an input pixel, gathering from the windows that hold it.
// Parallel over: (N, C, OH, OW) forward, (N, C, H, W) backward.
// Source: He et al., "Spatial pyramid pooling" (2014), sec. 2.2 for the windows.

#include "gpu/common.cuh"
#include "gpu/window.cuh"

__device__ inline int window_start(int output, int size, int outputs) {
    return (int)((long long)output * size / outputs);
}

__device__ inline int window_stop(int output, int size, int outputs) {
    return (int)(((long long)(output + 1) * size + outputs - 1) / outputs);
}

extern "C" __global__ void adaptive_avg_pool2d_forward(const real* __restrict__ x, real* __restrict__ y, Window w,
                                                       index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int ow = i % w.OW, oh = i / w.OW % w.OH;
    const real* plane = x + i / (w.OW * w.OH) * w.H * w.W;
    const int top = window_start(oh, w.H, w.OH), bottom = window_stop(oh, w.H, w.OH);
    const int left = window_start(ow, w.W, w.OW), right = window_stop(ow, w.W, w.OW);
    real sum = 0;
    for (int row = top; row < bottom; row++)
        for (int column = left; column < right; column++) sum += plane[row * w.W + column];
    y[i] = sum / ((bottom - top) * (right - left));
}

extern "C" __global__ void adaptive_avg_pool2d_backward(const real* __restrict__ dy, real* __restrict__ dx, Window w,
                                                        index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int column = i % w.W, row = i / w.W % w.H;
    const real* plane = dy + i / (w.W * w.H) * w.OH * w.OW;
    real sum = 0;
    // The outputs whose windows hold a row are themselves such a window, with the two sizes exchanged.
    for (int oh = window_start(row, w.OH, w.H); oh < window_stop(row, w.OH, w.H); oh++)
        for (int ow = window_start(column, w.OW, w.W); ow < window_stop(column, w.OW, w.W); ow++) {
            const int pixels = (window_stop(oh, w.H, w.OH) - window_start(oh, w.H, w.OH)) *
                               (window_stop(ow, w.W, w.OW) - window_start(ow, w.W, w.OW));
            sum += plane[oh * w.OW + ow] / pixels;
        }
    dx[i] = sum;
}
