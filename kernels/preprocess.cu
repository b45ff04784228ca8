// Images as bytes to a network's input: x[n,c,h,w] = (pixels[n,h,w,order[c]] / scale - mean[c]) / std[c].
//
// One version: a thread a value of x. A byte an image value crosses from the host instead of four, and its three
// operations round as alexnet_np/data/preprocess.py's do, so the bits are the same.
// Parallel over: (N, C, H, W).

#include "gpu/common.cuh"

struct Normalisation {  // its twin is in preprocess_cuda.py
    int C, area;  // channels, H*W
    real scale;
    real mean[4], std[4];
    int order[4];  // which channel of the pixels each is
};

extern "C" __global__ void preprocess_normalise(const unsigned char* __restrict__ pixels, real* __restrict__ x,
                                                Normalisation n, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int pixel = i % n.area, c = i / n.area % n.C;
    const index_t image = i / n.area / n.C;
    x[i] = ((real)pixels[(image * n.area + pixel) * n.C + n.order[c]] / n.scale - n.mean[c]) / n.std[c];
}
