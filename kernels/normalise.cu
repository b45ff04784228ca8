// Images as bytes to a network's input: x[n,c,h,w] = (pixels[n,h,w,order[c]] / scale - mean[c]) / std[c].
//
// One version: a thread a value of x. A byte an image value crosses from the host instead of four, and its three
// operations round as alexnet_np/data/preprocess.py's do, so the bits are the same.
// Parallel over: (N, C, H, W).

#include "common.cuh"

// Up to four channels, by value; its twin is in normalise_cuda.py.
struct Channels {
    real mean[4], std[4];
    int order[4];  // which channel of the pixels each is
};

extern "C" __global__ void normalise(const unsigned char* __restrict__ pixels, real* __restrict__ x, Channels channels,
                                     real scale, int C, int area, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int pixel = i % area, c = i / area % C;
    const index_t image = i / area / C;
    x[i] = ((real)pixels[(image * area + pixel) * C + channels.order[c]] / scale - channels.mean[c]) / channels.std[c];
}
