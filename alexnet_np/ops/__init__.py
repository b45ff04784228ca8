"""The math: one op a file, forward directly above backward, on NumPy and CuPy arrays alike.

Every op is a module with `forward(x, ...) -> (y, cache)` and `backward(dy, cache) -> gradients`, arguments named and
meant as in torch.nn.functional. `forward` and `backward` check and dispatch (alexnet_np/backend.py); `compute` and
`gradients` are the math itself, and the signatures that every kernel of the op shares.
The letters of shapes are those of alexnet_np/__init__.py.
"""

from alexnet_np.ops import (
    adaptive_avg_pool2d,
    avg_pool2d,
    checks,
    conv2d,
    cross_entropy,
    dropout,
    flatten,
    linear,
    local_response_norm,
    log_softmax,
    max_pool2d,
    relu,
    sgd,
    sigmoid,
    softmax,
    tanh,
)

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "checks",
    "conv2d",
    "cross_entropy",
    "dropout",
    "flatten",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "relu",
    "sgd",
    "sigmoid",
    "softmax",
    "tanh",
]
