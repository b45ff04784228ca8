// Local response normalisation within each map of (N, C, H, W): y = x / s^beta, s = k + a * (sum of squares in the window).
//
// A thread a place, reading its whole window. The gradient takes two passes, so that no window is read for each place of
// another: `pull` leaves dy * s^-beta in dx and what each place pulls on its window in `pull`, `backward` gathers.
// Parallel over: (N, C, H, W).
// Source: the authors' layers-145.cfg, "rnorm"; Caffe's WITHIN_CHANNEL (src/caffe/layers/lrn_layer.cpp).

#include "local_response_norm.cuh"

struct Area {  // its twin is in local_response_norm_cuda.py
    int H, W;       // of a map
    int low, high;  // the window: rows and columns before and after its own
    real scale, beta, k;
};

// s at place i of the maps x.
__device__ inline real norm(const real* x, index_t i, const Area& a) {
    const int column = i % a.W, row = i / a.W % a.H;
    const real* map = x + (i - (index_t)row * a.W - column);
    real sum = 0;
    for (int y = max(row - a.low, 0); y <= min(row + a.high, a.H - 1); y++)
        for (int z = max(column - a.low, 0); z <= min(column + a.high, a.W - 1); z++) {
            const real value = map[(index_t)y * a.W + z];
            sum += value * value;
        }
    return a.k + a.scale * sum;
}

extern "C" __global__ void local_response_norm_within_forward(const real* __restrict__ x, real* __restrict__ y, Area a,
                                                              index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    y[i] = x[i] * to_minus_beta(norm(x, i, a), a.beta);
}

extern "C" __global__ void local_response_norm_within_pull(const real* __restrict__ dy, const real* __restrict__ x,
                                                           real* __restrict__ pull, real* __restrict__ dx, Area a,
                                                           index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const real s = norm(x, i, a);
    const real direct = dy[i] * to_minus_beta(s, a.beta);
    dx[i] = direct;
    pull[i] = direct * x[i] / s;
}

extern "C" __global__ void local_response_norm_within_backward(const real* __restrict__ pull,
                                                               const real* __restrict__ x, real* __restrict__ dx,
                                                               Area a, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const int column = i % a.W, row = i / a.W % a.H;
    const real* map = pull + (i - (index_t)row * a.W - column);
    real sum = 0;  // over the places whose windows hold this one
    for (int y = max(row - a.high, 0); y <= min(row + a.low, a.H - 1); y++)
        for (int z = max(column - a.high, 0); z <= min(column + a.low, a.W - 1); z++) sum += map[(index_t)y * a.W + z];
    dx[i] -= 2 * a.scale * a.beta * x[i] * sum;
}
