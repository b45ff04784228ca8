// One output of a convolution as its definition says: the sum over its window, and the bias.
#pragma once

#include "gpu/common.cuh"
#include "conv2d_geometry.cuh"

// Of output number i of y (N,F,OH,OW), clamped at zero where conv.relu.
__device__ inline real convolved(const real* __restrict__ x, const real* __restrict__ weight,
                                 const real* __restrict__ bias, const Convolution& conv, index_t i) {
    const Window& w = conv.window;
    const int ow = i % w.OW, oh = i / w.OW % w.OH, f = i / (w.OW * w.OH) % conv.F;
    const int channels = w.C / conv.groups, first_channel = f / (conv.F / conv.groups) * channels;
    const real* image = x + (i / (w.OW * w.OH) / conv.F * w.C + first_channel) * w.H * w.W;
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
    return conv.relu && sum <= 0 ? (real)0 : sum;
}
