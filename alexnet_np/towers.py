"""A grouped network as two towers: two halves, each with its own filters, that exchange activations where they must.

    layer                                      each tower has                        crosses, of an image
    the first convolution                      half the filters, the whole image     nothing
    a convolution of two groups                its group                             nothing
    one of one group (conv 3 in figure 2)      half the filters, all the maps        the maps
    a dense layer                              half the units, all the inputs        its inputs
    the last dense layer                       on the first tower alone              the second tower's inputs
    anything else                              its own maps or units                 nothing

The weights are the grouped network's own: each tower looks at its rows of them. What a layer gives is put together only
where a hook asks for it. Backward the gradients of what crossed cross back, as many bytes; the image's own gradient is
the sum of the towers', made outside of both.

Equal to the grouped network to rounding: sums run over the same products. Dropout's mask is drawn for all units by the
layer's seed, and each tower takes its half.
The trap: a normalisation over all maps (Caffe's) looks across the border at every place, which figure 2 does not draw.
Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.2 and figure 2; computerhistory/AlexNet-Source-Code,
layers/layers-145.cfg, for what crosses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from alexnet_np import fusion, layers
from alexnet_np.device import Array, array_module
from alexnet_np.errors import AlexNetError, ArgumentError
from alexnet_np.layer import Layer
from alexnet_np.ops import dropout
from alexnet_np.parameters import Parameter

TOWERS = 2
ALIKE = (
    layers.ReLU,
    layers.Tanh,
    layers.Sigmoid,
    layers.Identity,
    layers.MaxPool2d,
    layers.AvgPool2d,
    layers.AdaptiveAvgPool2d,
)

Halves = tuple[Array, ...]  # one for each tower; a single one: the image, which both have, or the logits on the first


class Step(NamedTuple):
    """What forward did, to go back through: back(dy, whether dx is needed, retain_graph) gives dx."""

    back: Callable[[Halves, bool, bool], Halves | None]
    trainable: bool


class Towers:
    """Runs the parts of a network, one after another, as two towers: forward, and back through the last forward."""

    def __init__(self, parts: Sequence[Layer]) -> None:
        """Raises ArgumentError for a network that has no two towers, or a layer that cannot be divided."""
        self.parts = list(parts)
        leaves = [leaf for part in self.parts for _, leaf in part.leaves()]
        weighted = [leaf for leaf in leaves if isinstance(leaf, layers.WeightedLayer)]
        if not any(own_groups(leaf) for leaf in weighted):
            raise ArgumentError("towers=2: no convolution has two groups, so there are no two towers; use towers=1")
        self.last = weighted[-1]
        for leaf in leaves:
            check(leaf, leaf is self.last)
        self.crossed = 0  # bytes, of the last forward and the backward after it
        self.steps: list[Step] = []

    def __getstate__(self) -> dict[str, Any]:
        """A copy has not run yet."""
        return {**vars(self), "steps": []}

    def forward(self, x: Array) -> Array:
        self.crossed = 0
        halves, self.steps = self._through(self.parts, (x,))
        return joined(halves)

    def backward(self, dy: Array, input_grad: bool = True, retain_graph: bool = False) -> Array | None:
        """As Layer.backward. Raises AlexNetError where there is nothing to go back through."""
        if not self.steps:
            raise AlexNetError("model: backward needs a forward first")
        dx = back_through(self.steps, (dy,), input_grad, retain_graph)
        return None if dx is None else joined(dx)

    def _through(self, units: Iterable[Any], halves: Halves) -> tuple[Halves, list[Step]]:
        steps = []
        for unit in units:
            halves, step = self._run(unit, halves)
            steps.append(step)
        return halves, steps

    def _run(self, unit: Any, halves: Halves) -> tuple[Halves, Step]:
        """One layer, or several that a backend computes together, or a container."""
        if isinstance(unit, fusion.Fused):
            return self._leaf(unit.layers, halves)
        if not unit.hooked:
            return self._unhooked(unit, halves)
        entering = apart(unit.hooked_input(joined(halves)), len(halves))
        made, step = self._unhooked(unit, entering)
        leaving = apart(unit.hooked_output(joined(entering), joined(made)), len(made))

        def back(dy: Halves, needed: bool, retain_graph: bool) -> Halves | None:
            dx = step.back(dy, needed, retain_graph)
            seen = unit.hooked_gradient(None if dx is None else joined(dx), joined(dy))
            return None if seen is None else apart(seen, len(entering))

        return leaving, Step(back, step.trainable)

    def _unhooked(self, layer: Layer, halves: Halves) -> tuple[Halves, Step]:
        if not isinstance(layer, layers.Sequential):
            return self._leaf([layer], halves)
        made, steps = self._through(fusion.units(layer.layers), halves)
        return made, Step(lambda *given: back_through(steps, *given), any(step.trainable for step in steps))

    def _leaf(self, together: Sequence[Any], halves: Halves) -> tuple[Halves, Step]:
        """Layers with no hook between them: one, or those that a backend computes together."""
        first = together[0]
        given, returned = self._given(first, halves)
        units = [unit_of([half_of(layer, t, len(given)) for layer in together]) for t in range(len(given))]
        made = tuple(unit(x) for unit, x in zip(units, given, strict=True))
        for layer in together:
            if isinstance(layer, layers.Dropout) and layer.training:
                layer.calls += 1  # the halves are copies, whose calls do not count

        def back(dy: Halves, needed: bool, retain_graph: bool) -> Halves | None:
            dx = [unit.backward(d, needed, retain_graph) for unit, d in zip(units, dy, strict=True)]
            collect(together, units)
            return returned(dx) if needed else None

        return made, Step(back, any(p.requires_grad for layer in together for p in layer.parameters()))

    def _given(self, layer: Layer, halves: Halves) -> tuple[Sequence[Array], Callable[[list[Array]], Halves]]:
        """What each tower's part of a layer reads; and, of the gradients of that, those of the halves."""
        if not isinstance(layer, layers.WeightedLayer):
            return halves, tuple
        if len(halves) == 1:  # the image
            if own_groups(layer):
                return apart(halves[0], TOWERS), lambda dx: (joined(dx),)
            return halves * TOWERS, lambda dx: (dx[0] + dx[1],)
        if own_groups(layer):
            return halves, tuple
        self.crossed += sum(half.nbytes for half in halves[1 if layer is self.last else 0 :])
        whole, at = joined(halves), halves[0].shape[1]
        return [whole] * (1 if layer is self.last else TOWERS), lambda dx: self._returned(dx, at)

    def _returned(self, dx: list[Array], at: int) -> Halves:
        """Each tower's share of the gradients of what it gave away, those that the other one made having crossed."""
        shares = [(each[:, :at], each[:, at:]) for each in dx]
        for tower, own in enumerate(shares):
            self.crossed += own[1 - tower].nbytes
        return tuple(sum(parts[1:], parts[0]) for parts in zip(*shares, strict=True))


def back_through(steps: list[Step], dy: Halves, input_grad: bool, retain_graph: bool) -> Halves | None:
    """dx, if it is wanted; it stops where nothing earlier needs a gradient, as Sequential does."""
    gradient: Halves | None = dy
    for i in reversed(range(len(steps))):
        needed = input_grad or any(step.trainable for step in steps[:i])
        if gradient is None or not (needed or steps[i].trainable):
            if not retain_graph:
                del steps[: i + 1]
            return None
        gradient = steps[i].back(gradient, needed, retain_graph)
    return gradient


def check(layer: Layer, last: bool) -> None:
    """Raises ArgumentError for a layer that two towers cannot have between them."""
    why = ""
    if isinstance(layer, layers.LocalResponseNorm):
        if layer.region == "across" and layer.groups % TOWERS:
            why = "looks over all maps, across the towers; give it groups=2, as 'paper' and 'krizhevsky145' have it"
    elif isinstance(layer, layers.WeightedLayer):
        if len(layer.weight.data) % TOWERS and not last:
            why = f"has {len(layer.weight.data)} outputs, which two towers cannot share"
        elif isinstance(layer, layers.Conv2d) and layer.groups > 1 and layer.groups % TOWERS:
            why = f"has {layer.groups} groups, which two towers cannot share"
    elif isinstance(layer, layers.Flatten):
        if (layer.start_dim, layer.end_dim) != (1, -1):
            why = "flattens more, or less, than whole images"
    elif not isinstance(layer, (*ALIKE, layers.Dropout)):
        why = "is no layer that can be divided"
    if why:
        raise ArgumentError(f"towers=2: {layer!r} {why}")


def own_groups(layer: Layer) -> bool:
    """Whether each tower's half reads its own maps alone."""
    return isinstance(layer, layers.Conv2d) and layer.groups % TOWERS == 0


def half_of(layer: Any, tower: int, towers: int) -> Any:
    """What one tower has of a layer: a layer of its own, whose weights are the layer's, seen in part."""
    half = copy.copy(layer)
    half._forward_pre_hooks, half._forward_hooks, half._backward_hooks = {}, {}, {}
    if isinstance(layer, layers.WeightedLayer):
        half.weight = rows_of(layer.weight, tower, towers)
        half.bias = None if layer.bias is None else rows_of(layer.bias, tower, towers)
    if towers > 1 and isinstance(layer, layers.Conv2d | layers.LocalResponseNorm) and layer.groups > 1:
        half.groups = layer.groups // towers
    if isinstance(layer, layers.Dropout) and towers > 1:
        half.__class__ = HalfDropout
        half.tower = tower
    return half


class HalfDropout(layers.Dropout):
    """One tower's half of the mask that the whole layer would draw."""

    tower: int

    def compute(self, x: Array) -> tuple[Array, Any]:
        if not self.training or self.p == 0:
            return self.op.forward(x, p=self.p, training=False)
        seed = (self.seed & 0xFFFFFFFF) << 32 | self.calls & 0xFFFFFFFF
        whole = array_module(x).broadcast_to(x[:1, :1] * 0, (len(x), x.shape[1] * TOWERS, *x.shape[2:]))
        mask = dropout.draw_mask(whole, self.p, seed)
        return self.op.forward(x, p=self.p, mask=apart(mask, TOWERS)[self.tower])


def rows_of(parameter: Parameter, tower: int, towers: int) -> Parameter:
    rows = len(parameter.data) // towers
    part = Parameter(parameter.data[tower * rows : (tower + 1) * rows], parameter.fan_in)
    part.requires_grad = parameter.requires_grad
    return part


def unit_of(together: list[Any]) -> Any:
    return together[0] if len(together) == 1 else fusion.Fused(together)


def collect(together: Sequence[Any], units: Sequence[Any]) -> None:
    """Put the halves' gradients together and add them to the layers' own."""
    own = [unit.layers if isinstance(unit, fusion.Fused) else [unit] for unit in units]
    for layer, *halves in zip(together, *own, strict=True):
        for parameter, *parts in zip(layer.parameters(), *(half.parameters() for half in halves), strict=True):
            if parameter.requires_grad:
                parameter.accumulate(joined([part.grad for part in parts], axis=0))
            for part in parts:
                part.grad = None


def joined(halves: Sequence[Array], axis: int = 1) -> Array:
    """Both towers' maps, or units, behind one another."""
    return halves[0] if len(halves) == 1 else array_module(halves[0]).concatenate(halves, axis)


def apart(x: Array, towers: int) -> Halves:
    """Each tower's maps, or units."""
    if towers == 1:
        return (x,)
    half = x.shape[1] // towers
    return tuple(x[:, tower * half : (tower + 1) * half] for tower in range(towers))
