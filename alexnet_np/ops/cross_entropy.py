"""Softmax cross-entropy, from logits, against class indices or class probabilities.

With q = log_softmax(logits) over the C classes, w the class weights and e the label smoothing:

    class indices t:    loss_n = -(1-e) * w[t] * q[n,t] - (e/C) * sum over c of w[c]*q[n,c];  ignored rows give 0
    probabilities p:    loss_n = -sum over c of w[c] * ((1-e)*p[n,c] + e/C) * q[n,c]
    "mean":             indices: sum of losses / sum of w[t] over the rows not ignored;  probabilities: sum / rows

Gradient: with T[n,c] the coefficient of -q[n,c] above,  dlogits = softmax(logits) * (sum over c of T) - T, scaled as
the loss is.

The trap: "mean" divides by the weights of the targets, not by the batch; with every row ignored it is 0/0 = nan, as in
torch.
Source: Goodfellow, Bengio, Courville (2016), sec. 6.2.2.3; smoothing: Szegedy et al. (2016), sec. 7; the arguments:
torch.nn.functional.cross_entropy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from alexnet_np.arguments import integer, number, shown
from alexnet_np.backend import implementation
from alexnet_np.device import Array, array_module, as_array, beside, on_gpu
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError
from alexnet_np.ops import log_softmax
from alexnet_np.ops.checks import brief, cached, float_arrays, gradient


class Cache(NamedTuple):
    logits: Array  # (N, C, L)
    coefficients: Array  # (N, C, L): T, every row's target distribution, weighted and smoothed
    divisor: Array  # (): what "mean" divides by; 1 otherwise
    reduction: str
    loss_shape: tuple[int, ...]
    logits_shape: tuple[int, ...]

    def __repr__(self) -> str:
        return brief(self)


def forward(
    logits: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Array, Cache]:
    """The loss of logits (C,), (N,C) or (N,C,d1,...), float32 or float64; () for "mean" and "sum".

    `target`: integers of shape (), (N,) or (N,d1,...), or probabilities (floats) of the logits' shape. `weight` (C,).
    `reduction`: "mean", "sum" or "none". Raises ShapeError, DtypeError, ArgumentError.
    """
    logits, weight = float_arrays("cross_entropy", "weight", logits=logits, weight=weight)
    if isinstance(target, list | tuple | int):
        raise DtypeError(
            f"cross_entropy: target must be an array, got {type(target).__name__}; use numpy.asarray(target)"
        )
    target = as_array(target, "cross_entropy: target")
    if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f"cross_entropy: reduction must be 'mean', 'sum' or 'none', got {shown(reduction)}")
    label_smoothing = number("cross_entropy", "label_smoothing", label_smoothing, 0, 1)
    ignore_index = integer("cross_entropy", "ignore_index", ignore_index, most=2**63 - 1)
    if logits.ndim < 1:
        raise ShapeError("cross_entropy: logits must be (C,), (N,C) or (N,C,d1,...), got a scalar")
    C = logits.shape[0 if logits.ndim == 1 else 1]
    if weight is not None and weight.shape != (C,):
        raise ShapeError(f"cross_entropy: weight has shape {weight.shape}, {C} classes need ({C},)")
    rows_shape = () if logits.ndim == 1 else (logits.shape[0], *logits.shape[2:])
    if target.dtype.kind in "iu":
        if target.shape != rows_shape:
            raise ShapeError(f"cross_entropy: target has shape {target.shape}, logits {logits.shape} need {rows_shape}")
        make = index_coefficients
    else:
        if target.shape == rows_shape != logits.shape and target.dtype.kind == "f":
            raise DtypeError(
                f"cross_entropy: target holds {target.dtype}; class indices are ints: target.astype('int64')"
            )
        (target,) = float_arrays("cross_entropy", target=target)
        if target.dtype != logits.dtype:
            raise DtypeError(f"cross_entropy: logits are {logits.dtype} but target is {target.dtype}; use one dtype")
        if target.shape != logits.shape:
            raise ShapeError(f"cross_entropy: probabilities have shape {target.shape}, logits {logits.shape}")
        if ignore_index >= 0:
            raise ArgumentError("cross_entropy: ignore_index needs class indices, target holds probabilities")
        make = probability_coefficients
    N, L = (1, 1) if logits.ndim == 1 else (logits.shape[0], int(np.prod(logits.shape[2:], dtype=int)))
    flat = logits.reshape(N, C, L)
    coefficients, mass = make(target, flat, weight, ignore_index, label_smoothing)
    losses = implementation("cross_entropy", logits).compute(flat, coefficients)  # (N, L)
    xp = array_module(logits)
    divisor = mass if reduction == "mean" else xp.ones((), logits.dtype)
    if reduction == "none":
        loss = losses.reshape(rows_shape)
    else:
        with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 is nan, as in torch
            loss = xp.asarray(losses.sum() / divisor, logits.dtype)
    return loss, Cache(flat, coefficients, divisor, reduction, loss.shape, logits.shape)


def backward(dy: Any, cache: Cache) -> Array:
    """dlogits for dy of the loss's shape (1.0 for the gradient of a mean or a sum)."""
    logits, coefficients, divisor, reduction, loss_shape, logits_shape = cached("cross_entropy", cache, Cache)
    xp = array_module(logits)
    dy = xp.asarray(number("cross_entropy backward", "dy", dy), logits.dtype) if np.isscalar(dy) else dy
    dy = gradient("cross_entropy", dy, loss_shape, logits)
    if reduction == "none":
        N, _, L = logits.shape
        dy = dy.reshape(N, 1, L)
    else:
        dy = dy / xp.where(divisor == 0, logits.dtype.type(np.inf), divisor)  # all ignored: 0, though the loss is nan
    return implementation("cross_entropy", logits).gradients(dy, logits, coefficients).reshape(logits_shape)


def compute(logits: Array, coefficients: Array) -> Array:
    """(N,L): -sum over c of T*q, where a zero coefficient counts nothing even against q = -inf."""
    xp = array_module(logits)
    q = log_softmax.compute(logits, 1)
    terms = coefficients * xp.where(coefficients == 0, q.dtype.type(0), q)
    return -terms.sum(1, dtype=np.float64).astype(q.dtype)  # with smoothing it is a sum of C terms


def gradients(dy: Array, logits: Array, coefficients: Array) -> Array:
    q = log_softmax.compute(logits, 1)
    return dy * (array_module(logits).exp(q) * coefficients.sum(1, keepdims=True) - coefficients)


def index_coefficients(
    target: Array, logits: Array, weight: Array | None, ignore_index: int, smoothing: float
) -> tuple[Array, Array]:
    """T (N,C,L) for class indices, and the weight of the rows that count."""
    xp = array_module(logits)
    N, C, L = logits.shape
    if on_gpu(target) != on_gpu(logits):
        target = beside(target, logits)
    index = target.reshape(N, 1, L).astype(np.int64)
    counts = index != ignore_index
    if index.size and bool((counts & ((index < 0) | (index >= C))).any()):
        bad = index[counts & ((index < 0) | (index >= C))][0]
        raise ArgumentError(
            f"cross_entropy: target {int(bad)} is out of 0...{C - 1} and not ignore_index={ignore_index}"
        )
    classes = xp.arange(C)[None, :, None]
    weights = xp.ones((1, C, 1), logits.dtype) if weight is None else weight[None, :, None]
    hot = ((index == classes) & counts) * weights  # (N, C, L): w[t] at the target
    smooth = counts * weights * logits.dtype.type(smoothing / C if C else 0.0)
    return hot * logits.dtype.type(1.0 - smoothing) + smooth, hot.sum(dtype=logits.dtype)


def probability_coefficients(
    target: Array, logits: Array, weight: Array | None, ignore_index: int, smoothing: float
) -> tuple[Array, Array]:
    """T (N,C,L) for probabilities, and the number of rows; ignore_index does not apply to probabilities."""
    N, C, L = logits.shape
    real = logits.dtype.type
    target = target.reshape(N, C, L) * real(1.0 - smoothing) + real(smoothing / C if C else 0.0)
    if weight is not None:
        target = target * weight[None, :, None]
    return target, array_module(logits).asarray(N * L, logits.dtype)
