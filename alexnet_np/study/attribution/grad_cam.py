"""Grad-CAM: where in the last maps the unit's value comes from, and where in the picture that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alexnet_np import arguments, ops
from alexnet_np.device import Array, array_module, beside
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import no_grad
from alexnet_np.ops import sigmoid, tanh
from alexnet_np.study.attribution.methods import Method, Tick, batches
from alexnet_np.study.attribution.network import Unit, gradients
from alexnet_np.study.receptive_field import unit_centres
from alexnet_np.study.units import check_layer

ACTIVATIONS = (ops.relu, tanh, sigmoid)
POOLS = (ops.max_pool2d, ops.avg_pool2d)
PLACED = ("centres", "cv2", "units")


@dataclass(frozen=True)
class GradCam(Method):
    """ReLU(sum over maps of alpha_c * A_c), alpha_c the mean of ds/dA_c: (N,1,H,W), or (N,1,h,w) as "units".

    A: the output of `layer`; by default of the last ReLU (tanh, sigmoid) before the last pooling, whose 13x13 maps are
    the finest near the classes.
    `placed`: where the numbers of the maps lie in the picture, those between by linear interpolation. "centres": at
    the centres of what the units see (15, 31 ... 207 of 224 pixels for torchvision's), beyond the outermost as they
    are. "cv2": as cv2.resize and most programs stretch them, over all of the picture (8.1 ... 214.9). "units": not at
    all, one number a unit.
    Selvaraju et al., "Grad-CAM: visual explanations from deep networks" (2017), sec. 3.
    """

    layer: str | None = None
    placed: str = "centres"

    def __post_init__(self) -> None:
        arguments.choice("grad_cam", "placed", self.placed, PLACED)

    def values(self, unit: Unit, x: Array, tick: Tick) -> Array:
        name = self._maps_of(unit)
        before, after = unit.up_to(name)
        made = []
        for part in batches(len(x), tick):
            with no_grad():
                maps = before(x[part])
            alpha = gradients(after, maps, unit.indices[part]).mean((2, 3), keepdims=True)
            weighted = (alpha * maps).sum(1, keepdims=True)
            made.append(array_module(x).maximum(weighted, x.dtype.type(0)))
        found = array_module(x).concatenate(made)
        return found if self.placed == "units" else self._placed(found, unit, name, x.shape[-2:])

    def _maps_of(self, unit: Unit) -> str:
        """The layer whose maps are taken. Raises ArgumentError where there is none before the unit's."""
        target = unit.names[-1]
        earlier = [name for name in unit.names[:-1] if len(unit.places[name].shape) == 3]
        if self.layer is not None:
            if check_layer(self.layer, list(unit.places)) not in earlier:
                raise ArgumentError(f"grad_cam: {self.layer} is no layer of maps before {target}")
            return self.layer
        made_by = {name: unit.places[name].layer.op for name in unit.names}
        pools = [i for i, name in enumerate(unit.names) if made_by[name] in POOLS]
        before = unit.names[: max(pools, default=0)]
        found = [name for name in before if made_by[name] in ACTIVATIONS and name in earlier]
        if not found:
            raise ArgumentError(
                f"grad_cam: no ReLU and pooling lie before {target}; name the layer whose maps to take (layer)"
            )
        return found[-1]

    def _placed(self, found: Array, unit: Unit, name: str, size: tuple[int, int]) -> Array:
        """(N,1,h,w) -> (N,1,H,W)."""
        if self.placed == "cv2":
            centres = [(np.arange(n) + 0.5) * side / n - 0.5 for n, side in zip(found.shape[-2:], size, strict=True)]
        else:
            centres = list(unit_centres(unit.places, name))
        rows, columns = (
            beside(between(at, side).astype(found.dtype), found) for at, side in zip(centres, size, strict=True)
        )
        return rows @ found @ columns.T


def between(centres: np.ndarray, side: int) -> np.ndarray:
    """(side, n): of each pixel how much each of n numbers at `centres` counts, linear between the two next to it."""
    pixels = np.arange(side)
    return np.stack([np.interp(pixels, centres, one) for one in np.eye(len(centres))], axis=1)
