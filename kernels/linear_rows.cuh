// What the kernels of a dense layer for a few images are told of it; its twin is linear_rows_cuda.py's.
#pragma once

struct Rows {
    int N, F, K;  // images, outputs, inputs
    bool relu;
};
