"""What the kernels leave to the array operations: all through `array_version`, so that it is listed and counted.

LEFT           op -> what its kernel does not take
times_left     op -> how often that has happened in this process
"""

from __future__ import annotations

import importlib
from collections import Counter
from types import ModuleType

LEFT = {
    "relu": "another dtype than float32; arrays with gaps, or read-only",
    "dropout": "another dtype than float32; arrays not in C order, or read-only",
    "linear": "one row; another dtype than float32; few outputs; a weight not in C order; gradients of ragged widths",
    "local_response_norm": "across maps, planes with a beta that square roots cannot give; in plans: narrow groups",
    "cross_entropy": "another dtype than float32; no logits",
    "max_pool2d": "in plans: windows with gaps",
    "sgd": "the paper's rule; another dtype than float32; arrays with gaps",
}
times_left: Counter[str] = Counter()


def array_version(op: str) -> ModuleType:
    """The module of alexnet_np/ops that computes `op`, for a case of LEFT."""
    if op not in LEFT:
        raise KeyError(f"{op} leaves nothing to the array operations; say in LEFT what it does")
    times_left[op] += 1
    return importlib.import_module(f"alexnet_np.ops.{op}")
