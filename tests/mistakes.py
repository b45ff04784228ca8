"""Mistakes as tables: what was written, what the answer says, and under it the same mended as the answer says.

The names that the rows are written with are those of `names`; alexnet is anp.alexnet at 1/32 of its width.
"""

import functools

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np import layers, ops
from alexnet_np.training.config import Config
from alexnet_np.training.loop import Trainer
from alexnet_np.training.schedules import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

LONGEST = 420  # characters of an answer: sixteen names of arrays and what is wrong with them


def rows(table):
    """`wrong  ->  answer` and under it `right`, as triples for pytest.mark.parametrize."""
    lines = [line.strip() for line in table.strip().splitlines()]
    assert len(lines) % 2 == 0
    return [(*first.split("  ->  "), right) for first, right in zip(lines[::2], lines[1::2], strict=True)]


def names():
    """New for each row, so that no mistake spoils the next."""
    rng = np.random.default_rng(0)
    alexnet = functools.partial(anp.alexnet, width=1 / 32)
    model = alexnet(num_classes=10, seed=0)
    x = rng.standard_normal((2, 3, 8, 8), dtype=np.float32)
    y, cache = ops.max_pool2d.forward(x, 2)
    return {
        **{name: getattr(ops, name).forward for name in ops.__all__ if hasattr(getattr(ops, name), "forward")},
        "anp": anp,
        "np": np,
        "layers": layers,
        "ops": ops,
        "alexnet": alexnet,
        "model": model,
        "x": x,
        "w": rng.standard_normal((4, 3, 3, 3), dtype=np.float32),
        "y": y,
        "cache": cache,
        "logits": rng.standard_normal((4, 5), dtype=np.float32),
        "labels": np.array([0, 1, 2, 3]),
        "big": rng.standard_normal((1, 3, 64, 64), dtype=np.float32),
        "dy": np.ones((1, 10), np.float32),
        "picture": rng.integers(0, 256, (80, 70, 3), dtype=np.uint8),
        "named": list(model.named_parameters()),
        "optimizer": anp.SGD(model.named_parameters(), lr=0.1),
        "Config": Config,
        "Trainer": Trainer,
        "StepLR": StepLR,
        "OneCycleLR": OneCycleLR,
        "CosineAnnealingLR": CosineAnnealingLR,
        "ReduceLROnPlateau": ReduceLROnPlateau,
        "tiny": Config(dataset="synthetic", limit=8, width=1 / 32),
    }


def check(wrong, says, right, **more):
    with pytest.raises(anp.AlexNetError) as caught:
        eval(wrong, names() | more)
    answer = str(caught.value)
    assert says in answer and "\n" not in answer and len(answer) <= LONGEST
    eval(right, names() | more)
