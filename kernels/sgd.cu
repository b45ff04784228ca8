// One step of stochastic gradient descent with momentum, in place.
//
//     g += weight_decay * w;   v = g on the first step, then momentum * v + (1 - dampening) * g
//     w -= lr * (g + momentum * v  with nesterov,  v with momentum,  g without)
//
// One version: every term in one pass over w, g and v, which array operations would make five passes of.
// Parallel over: elements.  Source: Krizhevsky, Sutskever, Hinton (2012), sec. 5; torch.optim.SGD for the order of terms.

#include "common.cuh"

extern "C" __global__ void sgd_step(real* __restrict__ w, const real* __restrict__ gradient, real* __restrict__ velocity,
                                    real lr, real momentum, real dampening, real weight_decay, int nesterov, int first,
                                    index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const real g = gradient[i] + weight_decay * w[i];
    real step = g;
    if (velocity) {  // null without momentum
        const real v = first ? g : momentum * velocity[i] + (1 - dampening) * g;
        velocity[i] = v;
        step = nesterov ? g + momentum * v : v;
    }
    w[i] -= lr * step;
}
