"""Softmax cross-entropy on the GPU; see cross_entropy.cu. The signatures of alexnet_np/ops/cross_entropy.py."""

import numpy as np

from alexnet_np.device import Array, array_module
from alexnet_np.kernels.gpu.runtime import BLOCK, contiguous, empty, launch


def compute(logits: Array, coefficients: Array) -> Array:
    logits, coefficients = contiguous(logits), contiguous(coefficients)
    N, C, L = logits.shape
    losses = empty((N, L), logits)
    arguments = (logits, coefficients, losses, C, L)
    launch("cross_entropy", "cross_entropy_forward", (N * L,), (BLOCK,), *arguments, real=logits.dtype)
    return losses


def gradients(dy: Array, logits: Array, coefficients: Array) -> Array:
    """`dy` is (N,1,L), or one number for every row."""
    logits, coefficients = contiguous(logits), contiguous(coefficients)
    N, C, L = logits.shape
    dy = contiguous(array_module(logits).asarray(dy, logits.dtype))
    dlogits = empty(logits.shape, logits)
    arguments = (dy, logits, coefficients, dlogits, C, L, np.int32(dy.size > 1))
    launch("cross_entropy", "cross_entropy_backward", (N * L,), (BLOCK,), *arguments, real=logits.dtype)
    return dlogits


def loss_and_gradient(logits: Array, targets: Array, smoothing: float, scale: float) -> tuple[Array, Array]:
    """Losses (N,) and dlogits (N,C) of logits (N,C) against class indices (N,) int64, both times `scale`.

    What `compute` and `gradients` do with the coefficients of ops/cross_entropy.py, without those; a target that is no
    class gives its row the loss NaN and the gradient 0.
    """
    N, C = logits.shape
    losses, dlogits = empty((N,), logits), empty(logits.shape, logits)
    arguments = (logits, targets, losses, dlogits, C, float(smoothing), float(scale))
    launch("cross_entropy", "cross_entropy_step", (N,), (BLOCK,), *arguments, real=logits.dtype)
    return losses, dlogits
