// What the kernels of a convolution are told of it; its twin is conv2d_geometry_cuda.py's.
#pragma once

#include "gpu/window.cuh"

struct Convolution {
    Window window;
    int N, F;     // images, filters
    int groups;
    bool relu;    // whether y is clamped at zero
};
