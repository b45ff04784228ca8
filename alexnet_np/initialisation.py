"""How parameters start. The default is what torch's own layers do, so a fresh network behaves as torchvision's does.

"torch": weights and biases uniform in +-1/sqrt(fan_in): kaiming_uniform with a = sqrt(5), worked out.
Source: torch.nn.Conv2d and torch.nn.Linear, reset_parameters; He et al. (2015), eq. 10 and 15 for the rule behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from alexnet_np.layers import Parameter


def initialise(parameters: Iterable[tuple[str, Parameter]], seed: int) -> None:
    """Fill (name, parameter) pairs in place. The i-th parameter draws from its own stream of the seed.

    Numbers are drawn as float32 whatever the dtype, so that a float32 and a float64 network of one seed are the same.
    """
    for i, (_, parameter) in enumerate(parameters):
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, i]))
        bound = 1 / math.sqrt(parameter.fan_in) if parameter.fan_in else 0.0
        drawn = generator.random(parameter.shape, dtype=np.float32)  # in [0, 1)
        drawn *= np.float32(2 * bound)
        drawn -= np.float32(bound)
        parameter.data = drawn.astype(parameter.data.dtype, copy=False)
