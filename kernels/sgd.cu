// One step of stochastic gradient descent with momentum, in place.
//
//     g += weight_decay * w;   v = g on the first step, then momentum * v + (1 - dampening) * g
//     w -= lr * (g + momentum * v  with nesterov,  v with momentum,  g without)
//
// sgd_step          version 1: every term in one pass over w, g and v, which array operations would make five passes of.
// sgd_step_planned  the same with its numbers read from memory, so that a CUDA graph, whose arguments are fixed, follows a
//                   schedule of lr.
// Parallel over: elements.  Source: Krizhevsky, Sutskever, Hinton (2012), sec. 5; torch.optim.SGD for the order of terms.

#include "common.cuh"

__device__ inline void update(real* __restrict__ w, const real* __restrict__ gradient, real* __restrict__ velocity, real lr,
                              real momentum, real dampening, real weight_decay, bool nesterov, bool first, index_t i) {
    const real g = gradient[i] + weight_decay * w[i];
    real step = g;
    if (velocity) {  // null without momentum
        const real v = first ? g : momentum * velocity[i] + (1 - dampening) * g;
        velocity[i] = v;
        step = nesterov ? g + momentum * v : v;
    }
    w[i] -= lr * step;
}

extern "C" __global__ void sgd_step(real* __restrict__ w, const real* __restrict__ gradient, real* __restrict__ velocity,
                                    real lr, real momentum, real dampening, real weight_decay, int nesterov, int first,
                                    index_t count) {
    const index_t i = thread_number();
    if (i < count) update(w, gradient, velocity, lr, momentum, dampening, weight_decay, nesterov, first, i);
}

// numbers: lr, momentum, dampening, weight_decay, nesterov, first.
extern "C" __global__ void sgd_step_planned(real* __restrict__ w, const real* __restrict__ gradient,
                                            real* __restrict__ velocity, const real* __restrict__ numbers, index_t count) {
    const index_t i = thread_number();
    if (i < count)
        update(w, gradient, velocity, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4] != 0, numbers[5] != 0, i);
}
