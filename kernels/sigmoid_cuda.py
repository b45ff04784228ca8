"""The logistic function on the GPU; see sigmoid.cu. The signatures of alexnet_np/ops/sigmoid.py."""

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import launch_map


def compute(x: Array) -> Array:
    return launch_map("sigmoid", "sigmoid_forward", x)


def gradients(dy: Array, y: Array) -> Array:
    return launch_map("sigmoid", "sigmoid_backward", dy, y)
