// 2-D convolution, version 2: im2col, one product by cuBLAS, and col2im for the gradient of the input.
//
// conv2d_im2col   a thread a (channel, image, output pixel), writing the KH*KW rows of that column: one index
//                 decomposition serves them all. Columns of a whole slice of the batch lie side by side,
//                 (C*KH*KW, N, OH*OW), so that the product is one large matrix, not N small ones.
// conv2d_col2im   a thread an input pixel, gathering from its columns (window.cuh).
// conv2d_finish   that product is (F, N, OH*OW): back to (N, F, OH*OW), with bias and ReLU in the same pass.
// conv2d_gather   dy the other way, (N, F, OH*OW) to (F, N, OH*OW).
// Parallel over: columns, input pixels, outputs.
// Source: Chellapilla, Puri, Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006), sec. 2.

#include "gpu/common.cuh"
#include "conv2d_geometry.cuh"

// x (N, C, H, W) -> columns (C*KH*KW, N, OH*OW); a thread a (c, n, pixel).
extern "C" __global__ void conv2d_im2col(const real* __restrict__ x, real* __restrict__ columns, Convolution conv,
                                         index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const Window& w = conv.window;
    const int pixels = w.OH * w.OW, pixel = i % pixels, image = i / pixels % conv.N, c = i / pixels / conv.N;
    const int row = pixel / w.OW * w.SH - w.top, column = pixel % w.OW * w.SW - w.left;
    const real* plane = x + ((index_t)image * w.C + c) * w.H * w.W;
    const index_t width = (index_t)conv.N * pixels;  // of a row of `columns`
    real* out = columns + (index_t)c * w.KH * w.KW * width + image * (index_t)pixels + pixel;
    for (int kh = 0; kh < w.KH; kh++)
        for (int kw = 0; kw < w.KW; kw++, out += width) {
            const int h = row + kh * w.DH, v = column + kw * w.DW;
            *out = h >= 0 && h < w.H && v >= 0 && v < w.W ? plane[h * w.W + v] : (real)0;
        }
}

// columns (C*KH*KW, N, OH*OW) -> dx (N, C, H, W), the adjoint; a thread a pixel of dx.
extern "C" __global__ void conv2d_col2im(const real* __restrict__ columns, real* __restrict__ dx, Convolution conv,
                                         index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const Window& w = conv.window;
    const int c = i / (w.W * w.H) % w.C, image = i / (w.W * w.H) / w.C;
    const index_t pixels = w.OH * w.OW, width = conv.N * pixels;
    const real* rows = columns + (index_t)c * w.KH * w.KW * width + image * pixels;
    real sum = 0;
    each_window_over(i / w.W % w.H, i % w.W, w, [&](int tap, int output) { sum += rows[tap * width + output]; });
    dx[i] = sum;
}

// product (F, N, OH*OW) -> y (N, F, OH*OW), plus bias, clamped at zero where `relu`; a thread an element of y.
extern "C" __global__ void conv2d_finish(const real* __restrict__ product, const real* __restrict__ bias,
                                         real* __restrict__ y, Convolution conv, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int pixels = conv.window.OH * conv.window.OW, pixel = i % pixels;
    const int f = i / pixels % conv.F, image = i / pixels / conv.F;
    const real value = product[((index_t)f * conv.N + image) * pixels + pixel] + (bias ? bias[f] : (real)0);
    y[i] = conv.relu && value <= 0 ? (real)0 : value;
}

// dy (N, F, OH*OW) -> (F, N, OH*OW); a thread an element of the result.
extern "C" __global__ void conv2d_gather(const real* __restrict__ dy, real* __restrict__ gathered, Convolution conv,
                                         index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int pixels = conv.window.OH * conv.window.OW, pixel = i % pixels;
    const int image = i / pixels % conv.N, f = i / pixels / conv.N;
    gathered[i] = dy[((index_t)image * conv.F + f) * pixels + pixel];
}
