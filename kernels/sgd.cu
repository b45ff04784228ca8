// One step of stochastic gradient descent with momentum, in place; both rules of alexnet_np/ops/sgd.py.
//
// sgd_step          version 1: every term in one pass over w, g and v, which array operations would make five passes of.
// sgd_step_planned  the same with its numbers read from memory, so that a CUDA graph, whose arguments are fixed, follows a
//                   schedule of lr.
// Parallel over: elements.  Source: Krizhevsky, Sutskever, Hinton (2012), sec. 5; torch.optim.SGD for the order of terms.

#include "gpu/common.cuh"

struct Step {  // its twin is in alexnet_np/ops/sgd.py
    real lr, momentum, dampening, weight_decay;
    bool nesterov, paper, first;
};

// velocity is null without momentum, and holds nothing at first.
__device__ inline void update(real* __restrict__ w, const real* __restrict__ gradient, real* __restrict__ velocity,
                              const Step& s, index_t i) {
    if (s.paper) {
        real change = -s.lr * gradient[i] - s.weight_decay * s.lr * w[i];
        if (velocity) velocity[i] = change = s.first ? change : s.momentum * velocity[i] + change;
        w[i] += change;
        return;
    }
    const real g = gradient[i] + s.weight_decay * w[i];
    real change = g;
    if (velocity) {
        const real v = s.first ? g : s.momentum * velocity[i] + (1 - s.dampening) * g;
        velocity[i] = v;
        change = s.nesterov ? g + s.momentum * v : v;
    }
    w[i] -= s.lr * change;
}

extern "C" __global__ void sgd_step(real* __restrict__ w, const real* __restrict__ gradient, real* __restrict__ velocity,
                                    Step step, index_t count) {
    const index_t i = thread_number();
    if (i < count) update(w, gradient, velocity, step, i);
}

// numbers: lr, momentum, dampening, weight_decay, nesterov, first.
extern "C" __global__ void sgd_step_planned(real* __restrict__ w, const real* __restrict__ gradient,
                                            real* __restrict__ velocity, const real* __restrict__ numbers, bool paper,
                                            index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const Step step = {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4] != 0, paper, numbers[5] != 0};
    update(w, gradient, velocity, step, i);
}
