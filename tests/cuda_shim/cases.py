"""What the shim is put through: the cases of measure/cuda_cases.py, and what optimizers and plans launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from alexnet_np import ops
from alexnet_np.kernels import (
    cross_entropy_cuda,
    dropout_cuda,
    linear_int16_cuda,
    max_pool2d_cuda,
    preprocess_cuda,
    sgd_cuda,
)
from alexnet_np.kernels.gemm_cuda import matmul_precision
from alexnet_np.kernels.gpu.upload import upload
from alexnet_np.kernels.variants import find, using
from alexnet_np.measure.cuda_cases import CASES, cuda_versions, itself, normal, run_case
from alexnet_np.ops.sgd import Step

SGD_CASES = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.01},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
    {"lr": 0.1, "paper": True, "weight_decay": 0.01},
    {"lr": 0.1, "paper": True, "momentum": 0.9, "weight_decay": 5e-4},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
]


def run_sgd(options: dict[str, Any], dtype: str, steps: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The parameter and its velocity after some steps of the kernel."""
    parameter = normal(300).astype(dtype)
    velocity = np.full_like(parameter, np.nan)
    for i in range(steps):
        gradient = normal(300 + i)[i:].astype(dtype)
        step = Step(**options, first=i == 0)
        sgd_cuda.compute(parameter, gradient, velocity if step.momentum else None, step)
    return parameter, velocity


PIXELS = np.random.default_rng(1).integers(0, 256, (2, 5, 7, 3), np.uint8)
NORMALISATION = (255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # scale, mean, std
WORDS = np.random.default_rng(2).integers(0, 2**63, 135, np.uint64)  # more than two launches carry
SEED, DROPPED = 2**63 + 12345, 0.3
TARGETS = np.array([3, 0, 299, -1, 300, 7])  # two are no class
POOLING = {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 1, "ceil_mode": True}


def run_plan_kernels(dtype: str, place: Callable = itself, fetch: Callable = itself) -> dict[str, np.ndarray]:
    """What only plans launch, at least once each: every output by name."""
    normalised = preprocess_cuda.compute(place(PIXELS), *NORMALISATION, dtype=dtype)
    backwards = preprocess_cuda.compute(place(PIXELS), *NORMALISATION, order=(2, 1, 0), dtype=dtype)
    words = place(np.zeros_like(WORDS))
    upload(WORDS, words)
    dropped = dropout_cuda.compute_seeded(
        place(normal(3, 341).astype(dtype)), DROPPED, place(np.array([SEED], np.uint64))
    )
    options = SGD_CASES[-1]
    parameter, velocity = place(normal(300).astype(dtype)), place(np.full(300, np.nan, dtype))
    names = Step._fields[:5]
    for i in range(3):
        numbers = place(np.array([*(options.get(name, 0) for name in names), i == 0], dtype))
        sgd_cuda.compute_planned(parameter, place(normal(300 + i)[i:].astype(dtype)), velocity, numbers, paper=False)
    logits = place(normal(6, 300).astype(dtype))
    losses, dlogits = cross_entropy_cuda.loss_and_gradient(logits, place(TARGETS), 0.1, 1 / 6)
    x = normal(2, 2, 9, 10).astype(dtype)
    pooled = max_pool2d_cuda.pool(place(x), ops.max_pool2d.find_geometry(x, **POOLING))
    outputs = {"normalised": normalised, "normalised, BGR": backwards, "words": words, "dropped": dropped}
    outputs |= run_int16(dtype, place)
    outputs |= {"parameter": parameter, "velocity": velocity, "losses": losses, "dlogits": dlogits, "pooled": pooled}
    return {name: fetch(array) for name, array in outputs.items()}


SHORT = normal(19, 300), normal(7, 37)  # weights whose rows a vector load may read, and may not
ROWS = {"rows": 3, "cublas": 6}  # by which way so many images go


def run_int16(dtype: str, place: Callable = itself) -> dict[str, Any]:
    """Dense layers on weights in 16 bits, by either way."""
    outputs = {}
    for weight in SHORT:
        F, K = weight.shape
        packed = linear_int16_cuda.room(place(weight.astype(dtype)))
        linear_int16_cuda.pack(place(weight.astype(dtype)), packed)
        outputs |= {f"integers {K}": packed.integers, f"scales {K}": packed.scales}
        for way, N in ROWS.items():
            x, bias = (place(normal(*shape).astype(dtype)) for shape in ((N, K), (F,)))
            assert linear_int16_cuda.choose(x, packed) == way
            outputs[f"int16 {K} {way}"] = linear_int16_cuda.multiply(x, packed, bias, relu=way == "rows")
    return outputs


def launch_everything(dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
    """Every kernel in every build that the cases ask for, on whatever executor is set."""
    for dtype in dtypes:
        for case in CASES:
            for variant in cuda_versions(case.op):
                with using(variant):
                    run_case(case, dtype)
        run_sgd(SGD_CASES[-1], dtype)
        run_plan_kernels(dtype)
    with matmul_precision("tf32x3"), using(find("linear", "cublas")):
        run_case(next(c for c in CASES if c.op == "linear"), "float32")
