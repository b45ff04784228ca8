"""ReLU on the GPU; see relu.cu. The signatures of alexnet_np/ops/relu.py."""

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import launch_map


def compute(x: Array) -> Array:
    return launch_map("relu", "relu_forward", x)


def gradients(dy: Array, y: Array) -> Array:
    return launch_map("relu", "relu_backward", dy, y)
