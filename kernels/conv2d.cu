// 2-D convolution: every version but the tiled one (conv2d_implicit.cu).
//
// conv2d_direct  version 1, the naive one: a thread an output, walking its whole window. Every input value is read
//                F*KH*KW times, every weight N*OH*OW times, and only the caches help.
// version 2:     im2col, one product by cuBLAS, and col2im for the gradient of the input; its kernels are
//   conv2d_im2col   a thread a (channel, image, output pixel), writing the KH*KW rows of that column: one index
//                   decomposition serves them all. Columns of a whole slice of the batch lie side by side,
//                   (C*KH*KW, n, OH*OW), so that the product is one large matrix, not n small ones.
//   conv2d_col2im   a thread an input pixel, gathering from its columns. A scatter would need atomics.
//   conv2d_finish   that product is (F, n, OH*OW): back to (n, F, OH*OW), with bias and ReLU in the same pass.
//   conv2d_gather   dy the other way, (n, F, OH*OW) to (F, n, OH*OW).
// Parallel over: outputs, columns, input pixels.
// Source: Chellapilla, Puri, Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006), sec. 2.

#include "common.cuh"

extern "C" __global__ void conv2d_direct(const real* __restrict__ x, const real* __restrict__ weight,
                                         const real* __restrict__ bias, real* __restrict__ y, Window w, int F, int groups,
                                         int relu, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int ow = i % w.OW, oh = i / w.OW % w.OH, f = i / (w.OW * w.OH) % F;
    const int channels = w.C / groups, first_channel = f / (F / groups) * channels;
    const real* image = x + (i / (w.OW * w.OH) / F * w.C + first_channel) * w.H * w.W;
    const real* filter = weight + (index_t)f * channels * w.KH * w.KW;
    real sum = 0;
    for (int c = 0; c < channels; c++)
        for (int kh = 0; kh < w.KH; kh++) {
            const int row = oh * w.SH - w.top + kh * w.DH;
            if (row < 0 || row >= w.H) continue;
            for (int kw = 0; kw < w.KW; kw++) {
                const int column = ow * w.SW - w.left + kw * w.DW;
                if (column < 0 || column >= w.W) continue;
                sum += filter[(c * w.KH + kh) * w.KW + kw] * image[((index_t)c * w.H + row) * w.W + column];
            }
        }
    if (bias) sum += bias[f];
    y[i] = relu && sum <= 0 ? (real)0 : sum;
}

// x (n, C, H, W) -> columns (C*KH*KW, n, OH*OW); a thread a (c, n, pixel).
extern "C" __global__ void conv2d_im2col(const real* __restrict__ x, real* __restrict__ columns, Window w, int n,
                                         index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int pixels = w.OH * w.OW, pixel = i % pixels, image = i / pixels % n, c = i / pixels / n;
    const int row = pixel / w.OW * w.SH - w.top, column = pixel % w.OW * w.SW - w.left;
    const real* plane = x + ((index_t)image * w.C + c) * w.H * w.W;
    const index_t width = (index_t)n * pixels;  // of a row of `columns`
    real* out = columns + (index_t)c * w.KH * w.KW * width + image * (index_t)pixels + pixel;
    for (int kh = 0; kh < w.KH; kh++)
        for (int kw = 0; kw < w.KW; kw++, out += width) {
            const int h = row + kh * w.DH, v = column + kw * w.DW;
            *out = h >= 0 && h < w.H && v >= 0 && v < w.W ? plane[h * w.W + v] : (real)0;
        }
}

// columns (C*KH*KW, n, OH*OW) -> dx (n, C, H, W), the adjoint; a thread a pixel of dx.
extern "C" __global__ void conv2d_col2im(const real* __restrict__ columns, real* __restrict__ dx, Window w, int n,
                                         index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int column = i % w.W + w.left, row = i / w.W % w.H + w.top;
    const int c = i / (w.W * w.H) % w.C, image = i / (w.W * w.H) / w.C;
    const index_t pixels = w.OH * w.OW, width = n * pixels;
    const real* rows = columns + (index_t)c * w.KH * w.KW * width + image * pixels;
    real sum = 0;
    for (int kh = 0; kh < w.KH; kh++) {
        const int down = row - kh * w.DH;  // where the window starts that has this pixel at kh, if there is one
        if (down < 0 || down % w.SH || down / w.SH >= w.OH) continue;
        for (int kw = 0; kw < w.KW; kw++) {
            const int across = column - kw * w.DW;
            if (across < 0 || across % w.SW || across / w.SW >= w.OW) continue;
            sum += rows[(kh * w.KW + kw) * width + down / w.SH * w.OW + across / w.SW];
        }
    }
    dx[i] = sum;
}

// product (F, n, pixels) -> y (n, F, pixels), plus bias, clamped at zero where `relu`; a thread an element of y.
extern "C" __global__ void conv2d_finish(const real* __restrict__ product, const real* __restrict__ bias,
                                         real* __restrict__ y, int F, int n, int pixels, int relu, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int pixel = i % pixels, f = i / pixels % F, image = i / pixels / F;
    const real value = product[((index_t)f * n + image) * pixels + pixel] + (bias ? bias[f] : (real)0);
    y[i] = relu && value <= 0 ? (real)0 : value;
}

// dy (n, F, pixels) -> (F, n, pixels); a thread an element of the result.
extern "C" __global__ void conv2d_gather(const real* __restrict__ dy, real* __restrict__ gathered, int F, int n,
                                         int pixels, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int pixel = i % pixels, image = i / pixels % n, f = i / pixels / n;
    gathered[i] = dy[((index_t)image * F + f) * pixels + pixel];
}
