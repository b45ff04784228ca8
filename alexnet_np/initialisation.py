"""How parameters start. The default is what torch's own layers do, so a fresh network behaves as torchvision's does.

    scheme           weights                                   biases
    "torch"          uniform in +-1/sqrt(fan_in)               the same
    "paper"          normal, std 0.01                          1 in layers 2, 4, 5, 6, 7, else 0
    "krizhevsky145"  normal, std 0.01, in layers 3-5 0.03      as "paper"
    "caffe"          normal, std 0.01, in layers 6, 7 0.005    0.1 in layers 2, 4, 5, 6, 7, else 0
    "caffenet"       as "caffe"                                as "paper"
    "xavier"         uniform in +-sqrt(6/(fan_in + fan_out))   0
    "kaiming"        normal, std sqrt(2/fan_in)                0

Layers are counted from 1: five convolutions, then three dense ones. fan_in and fan_out are the inputs that one output
sums over and the outputs that one input reaches. A deviation given as a number is the full network's: that of a copy of
`width` is divided by sqrt(width) where there are fewer inputs, so that sums of them are as large as there.

Source: torch.nn.Conv2d and torch.nn.Linear, reset_parameters; Krizhevsky, Sutskever, Hinton (2012), sec. 5;
computerhistory/AlexNet-Source-Code: layers/layers-145.cfg; BVLC/caffe: models/bvlc_alexnet/train_val.prototxt,
models/bvlc_reference_caffenet/train_val.prototxt; Glorot and Bengio (2010), eq. 16; He et al. (2015), eq. 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from alexnet_np.errors import ArgumentError
from alexnet_np.parameters import Parameter
from alexnet_np.random import generator

# Layers whose biases the paper starts above 0, so that their ReLUs see positive inputs at once.
RAISED = (2, 4, 5, 6, 7)


class Scheme(NamedTuple):
    distribution: str  # "uniform" or "normal"
    spread: Callable[[int, int, int], float]  # (fan_in, fan_out, layer) -> half the width, or the standard deviation
    bias: Callable[[int], float] | None  # layer -> value; None draws biases as weights
    absolute: bool = False  # the spread is the full network's, whatever the fan_in


def raised(layer: int) -> float:
    return 1.0 if layer in RAISED else 0.0


def caffes(fan_in: int, fan_out: int, layer: int) -> float:
    return 0.005 if layer in (6, 7) else 0.01


SCHEMES = {
    "torch": Scheme("uniform", lambda fan_in, fan_out, layer: 1 / math.sqrt(fan_in), None),
    "paper": Scheme("normal", lambda fan_in, fan_out, layer: 0.01, raised, absolute=True),
    "krizhevsky145": Scheme(
        "normal", lambda fan_in, fan_out, layer: 0.03 if layer in (3, 4, 5) else 0.01, raised, absolute=True
    ),
    "caffe": Scheme("normal", caffes, lambda layer: 0.1 if layer in RAISED else 0.0, absolute=True),
    "caffenet": Scheme("normal", caffes, raised, absolute=True),
    "xavier": Scheme("uniform", lambda fan_in, fan_out, layer: math.sqrt(6 / (fan_in + fan_out)), lambda layer: 0.0),
    "kaiming": Scheme("normal", lambda fan_in, fan_out, layer: math.sqrt(2 / fan_in), lambda layer: 0.0),
}


def initialise(
    parameters: Iterable[tuple[str, Parameter]], seed: int, scheme: str = "torch", width: float = 1.0
) -> None:
    """Fill a network's (name, parameter) pairs in place. The i-th parameter draws from its own stream of the seed.

    Numbers are drawn as float32 whatever the dtype, so that a float32 and a float64 network of one seed are the same.
    Raises ArgumentError for an unknown scheme.
    """
    if scheme not in SCHEMES:
        raise ArgumentError(f"unknown initialisation {scheme!r}: choose one of {', '.join(SCHEMES)}")
    distribution, spread, bias, absolute = SCHEMES[scheme]
    layer = 0
    for i, (name, parameter) in enumerate(parameters):
        is_bias = name.endswith("bias")
        layer += not is_bias
        if is_bias and bias is not None:
            values = np.full(parameter.shape, bias(layer), np.float32)
        else:
            values = draw(generator(seed, i), distribution, parameter)
            size = spread(parameter.fan_in, fan_out(parameter), layer) if parameter.fan_in else 0.0
            values *= np.float32(size / math.sqrt(width) if absolute and layer > 1 else size)
        parameter.data = values.astype(parameter.data.dtype, copy=False)


def fan_out(parameter: Parameter) -> int:
    """How many outputs one input reaches."""
    return parameter.shape[0] * math.prod(parameter.shape[2:])


def draw(numbers: np.random.Generator, distribution: str, parameter: Parameter) -> np.ndarray:
    """float32 numbers of the parameter's shape, uniform in [-1, 1) or normal with standard deviation 1."""
    if distribution == "normal":
        return numbers.standard_normal(parameter.shape, dtype=np.float32)
    drawn = numbers.random(parameter.shape, dtype=np.float32)  # in [0, 1)
    drawn *= np.float32(2)
    drawn -= np.float32(1)
    return drawn
