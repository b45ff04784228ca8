"""How long each layer of a network takes, forward."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from alexnet_np.device import as_array, on_gpu
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import no_grad
from alexnet_np.models import AlexNet


@dataclass(frozen=True)
class LayerTime:
    name: str  # as in state_dict: "features.0"
    type: str
    macs: int  # multiply-accumulates of the whole batch
    seconds: float  # median of the runs

    @property
    def gflops(self) -> float:
        """Thousands of millions of floating-point operations a second, two to a multiply-accumulate."""
        return 2e-9 * self.macs / self.seconds if self.seconds else 0.0


def time_layers(model: AlexNet, x: Any, runs: int = 5) -> list[LayerTime]:
    """Each layer's wall time over `runs` forward passes of x (N,C,H,W), after one more to warm up.

    A run goes through all layers, so that each meets the caches as the one before it left them, as in use; the median
    over the runs leaves out a stall of the machine. On a GPU every layer is waited for.
    """
    if runs < 1:
        raise ArgumentError(f"time_layers: runs must be at least 1, got {runs}")
    entered = as_array(x, "time_layers: x")
    wait = _device_wait(entered)
    seconds: dict[str, list[float]] = {name: [] for name, _ in model.leaves()}
    with no_grad():
        model(entered)  # warms up, and refuses a wrong input
        for _ in range(runs):
            y = entered
            for name, layer in model.leaves():
                start = perf_counter()
                y = layer(y)
                wait()
                seconds[name].append(perf_counter() - start)
    rows, shape = [], entered.shape
    for name, layer in model.leaves():
        rows.append(LayerTime(name, type(layer).__name__, layer.macs(shape), median(seconds[name])))
        shape = layer.output_shape(shape)
    return rows


def _device_wait(x: Any) -> Callable[[], None]:
    """What to call to be sure that the work on x's device is done."""
    if on_gpu(x):
        return importlib.import_module("cupy").cuda.get_current_stream().synchronize
    return lambda: None
