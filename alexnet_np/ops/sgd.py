"""One step of stochastic gradient descent with momentum: torch.optim.SGD's rule, and the 2012 paper's.

With gradient g, weight w, velocity v (zero at first), rate lr, momentum m, dampening d and weight decay wd:

    rule "torch":  g = g + wd*w;   v = m*v + (1-d)*g  (d = 0 the first time);   w = w - lr*v
                   with nesterov:  w = w - lr*(g + m*v);   without momentum:  w = w - lr*g
    rule "paper":  v = m*v - wd*lr*w - lr*g;   w = w + v

While lr stays the same the two agree: the paper's v is -lr times torch's. The trap: they part when lr changes. Torch's
new rate also scales the steps already gathered in v, the paper's v keeps the rate that each step was taken with. Caffe
does as the paper does.

Source: Krizhevsky, Sutskever, Hinton (2012), sec. 5; torch.optim.SGD; Sutskever et al. (2013) for Nesterov's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from alexnet_np.backend import implementation
from alexnet_np.device import Array, on_gpu

RULES = ("torch", "paper")
BLOCK = 1 << 16  # elements updated at a time on a CPU: what is read stays in cache for every operation on it


class Step(NamedTuple):
    """What a step depends on beside the arrays. The paper's rule has neither dampening nor Nesterov's."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    paper: bool = False
    first: bool = False  # v is written, not read


def update(w: Array, g: Array, v: Array | None, step: Step) -> None:
    """One step of w and v in place, g left alone; all of one shape and dtype. v is None without momentum."""
    implementation("sgd", w).compute(w, g, v, step)


def compute(w: Array, g: Array, v: Array | None, step: Step) -> None:
    """A few rows of a CPU array at a time, so that no operation walks through all of memory."""
    rule = paper_rule if step.paper else torch_rule
    for rows in row_slices(w):
        rule(w[rows], g[rows], None if v is None else v[rows], step)


def torch_rule(w: Array, g: Array, v: Array | None, step: Step) -> None:
    if step.weight_decay:
        g = g + step.weight_decay * w
    if v is not None:
        if step.first:
            v[...] = g
        else:
            v *= step.momentum
            v += (1 - step.dampening) * g if step.dampening else g
        g = g + step.momentum * v if step.nesterov else v
    w -= step.lr * g


def paper_rule(w: Array, g: Array, v: Array | None, step: Step) -> None:
    change = -step.lr * g
    if step.weight_decay:
        change -= (step.weight_decay * step.lr) * w
    if v is not None:
        if step.first:
            v[...] = change
        else:
            v *= step.momentum
            v += change
        change = v
    w += change


def row_slices(w: Array) -> Iterator[slice]:
    rows = max(1, len(w) if on_gpu(w) else BLOCK * len(w) // max(1, w.size))
    for start in range(0, len(w), rows):
        yield slice(start, start + rows)
