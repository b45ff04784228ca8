"""Log-softmax on the GPU, by the kernels of softmax.cu. The signatures of alexnet_np/ops/log_softmax.py."""

from alexnet_np.device import Array
from alexnet_np.kernels import softmax_cuda


def compute(x: Array, dim: int) -> Array:
    return softmax_cuda.compute(x, dim, logarithm=True)


def gradients(dy: Array, y: Array, dim: int) -> Array:
    return softmax_cuda.gradients(dy, y, dim, logarithm=True)
