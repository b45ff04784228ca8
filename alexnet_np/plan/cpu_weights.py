"""A model's weights as the steps on the CPU read them: copies until they are refreshed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array
from alexnet_np.kernels import linear_int16_numba
from alexnet_np.kernels.gemm_numba import WIDTH
from alexnet_np.layers import stand_in
from alexnet_np.models import AlexNet


class Panels(NamedTuple):
    """A dense layer's weight, packed, and its bias; the scales are of weights in 16 bits."""

    weights: Array
    bias: Array
    scales: Array


class PackedWeights:
    """Shared by the programs for several sizes of image.

    A dense layer's panels serve every size. A convolution's filters are kept unpacked too, few as they are beside the
    dense ones: another size may transform them otherwise.
    """

    def __init__(self, model: AlexNet, dense: str = "float32", forget: bool = False) -> None:
        """`forget`: the model's own weights go as they are taken, and dense ones are packed where they lie."""
        self.model, self.dense, self._forgets = model, dense, forget
        self.filters: dict[str, tuple[Array, Array | None]] = {}
        self._panels: dict[str, Panels] = {}

    def of_now(self, name: str) -> tuple[Array, Array | None]:
        """The weight and bias of the layer `name` as the model has them."""
        arrays = {own: parameter.data for own, parameter in self.model.named_parameters()}
        return arrays[f"{name}.weight"], arrays.get(f"{name}.bias")

    def forget(self, kept: Collection[str]) -> None:
        """Drop from the model what is not of the layers `kept`; the shapes stay. Only where that was asked for."""
        for own, parameter in self.model.named_parameters() if self._forgets else ():
            if own.rpartition(".")[0] not in kept:
                parameter.data = stand_in(parameter.shape)

    def lends(self, name: str) -> bool:
        """Whether the panels of the layer `name` are the model's own memory, to be packed in place."""
        weight, _ = self.of_now(name)
        whole = weight.flags.c_contiguous and weight.flags.writeable and len(weight) % WIDTH == 0
        return self._forgets and self.dense == "float32" and whole

    def panels(self, name: str, shape: tuple[int, ...]) -> Panels:
        """Where the weight (N,K) of the dense layer `name` is packed to; nothing is there until a step packs it."""
        if name not in self._panels:
            N, K = shape
            units, scales = -(-N // WIDTH) * WIDTH, 0
            if self.dense == "int16":
                _, scales = linear_int16_numba.room(N, K)
            weights = self.of_now(name)[0].reshape(-1) if self.lends(name) else np.empty(units * K, self.dense)
            self._panels[name] = Panels(weights, np.zeros(units, np.float32), np.empty(scales, np.float32))
        return self._panels[name]

    def copy_filters(self, convolutions: list[Any]) -> None:
        for step in convolutions:
            weight, bias = self.of_now(step.name)
            copied = (weight, bias) if self._forgets else (weight.copy(), None if bias is None else bias.copy())
            self.filters[step.name] = copied
