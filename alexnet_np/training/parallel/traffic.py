"""What a training step sends from process to process, by the formula.

Of a step with a batch of B on R processes, all of them together, numbers of 4 bytes (float64: 8):

    data      2 (R-1) P                   a ring's allreduce of P gradients: R processes send 2 (R-1)/R P each
    weird     2 (R-1) P'                  of the convolutions' P' gradients
              2 (R-1) B (F + U + ...)     rows of F features, units of every dense layer but the last; gradients back
              (R-1) B L                   logits
    towers    2 B (M + F + U + ... + V/2) maps before conv 3, inputs of the dense layers, half of the last one's; back

Gradients that are not needed, of what is frozen and has nothing to train before it, do not travel. counted.py counts.
Source: rings: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH" (2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from alexnet_np.errors import ArgumentError
from alexnet_np.layers import Conv2d, Linear, Shape, WeightedLayer
from alexnet_np.models import AlexNet
from alexnet_np.parameters import Parameter
from alexnet_np.towers import TOWERS, own_groups
from alexnet_np.training.parallel.exchange import rounded_up
from alexnet_np.training.parallel.two_towers import check_towers, crosses_border, reach


class Term(NamedTuple):
    """A part of what a step sends."""

    what: str
    formula: str  # with its numbers in it
    bytes: int  # by all processes together


def terms(model: AlexNet, shape: Shape, parallel: str, processes: int) -> list[Term]:
    """What a training step of `model` sends, in whose state it is whole, for a batch of `shape` (N,C,H,W).

    Raises ArgumentError where `processes` or the network are none for this way.
    """
    if parallel == "towers":
        check_towers(model, processes)
    if processes == 1:
        return []
    if parallel == "data" and processes & (processes - 1):
        raise ArgumentError(f"parallel 'data' takes 2, 4, 8 ... processes, as many as shards, got {processes}")
    found = {"data": _of_data, "weird": _of_weird, "towers": _of_towers}[parallel]
    return found(model, shape, processes)


def _of_data(model: AlexNet, shape: Shape, processes: int) -> list[Term]:
    return _gradients("all gradients", list(model.parameters()), processes)


def _of_weird(model: AlexNet, shape: Shape, processes: int) -> list[Term]:
    found = _gradients("the convolutions' gradients", list(model.features.parameters()), processes)
    dense = [(name, layer) for name, layer in model.leaves() if isinstance(layer, Linear)]
    others, item = processes - 1, model.dtype.itemsize
    for name, layer in dense:
        what, ways = _both_ways(model, name)
        values = ways * others * shape[0] * layer.in_features
        of = f"{ways * others} x {shape[0]} x {layer.in_features:,} x {item}"
        found.append(Term(f"inputs of {name}{what}", of, values * item))
    classes = dense[-1][1].out_features
    return [*found, Term("logits", f"{others} x {shape[0]} x {classes:,} x {item}", others * shape[0] * classes * item)]


def _of_towers(model: AlexNet, shape: Shape, processes: int) -> list[Term]:
    item, found, B = model.dtype.itemsize, [], shape[0]
    weighted = [layer for _, layer in model.leaves() if isinstance(layer, WeightedLayer)]
    for name, layer in model.leaves():
        sides: Any = shape[2:]
        if crosses_border(layer):
            far, near = reach(layer, shape[1] // TOWERS)  # type: ignore[arg-type]
            what, ways = _both_ways(model, name)
            maps = TOWERS * (far + near * (ways - 1))
            of = f"{B} x {maps} x {math.prod(sides)} x {item}"
            found.append(Term(f"maps at the border in {name}{what}", of, B * maps * math.prod(sides) * item))
        elif isinstance(layer, WeightedLayer) and layer is not weighted[0] and not own_groups(layer):
            last = layer is weighted[-1]
            kind, count = ("maps" if isinstance(layer, Conv2d) else "inputs"), math.prod(shape[1:]) // (1 + last)
            what, ways = _both_ways(model, name)
            of = f"{ways} x {B} x {count:,} x {item}"
            found.append(Term(f"{'half the ' * last}{kind} of {name}{what}", of, ways * B * count * item))
        shape = layer.output_shape(shape)
    return found


def _both_ways(model: AlexNet, name: str) -> tuple[str, int]:
    """Whether the gradients of what enters a layer go back: where something before it is trained."""
    for other, layer in model.leaves():
        if other == name:
            break
        if any(parameter.requires_grad for parameter in layer.parameters()):
            return ", and back", 2
    return "", 1


def _gradients(what: str, parameters: Sequence[Parameter], processes: int) -> list[Term]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return []
    times, item, numbers = 2 * (processes - 1), trained[0].dtype.itemsize, sum(p.size for p in trained)
    more = rounded_up(trained, processes) - numbers
    found = [Term(what, f"{times} x {numbers:,} x {item}", times * numbers * item)]
    rounded = Term("their slices rounded up", f"{times} x {more:,} x {item}", times * more * item)
    return [*found, rounded] if more else found
