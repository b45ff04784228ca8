"""In what two networks of the same shapes differ: the order of their layers, and the constants in them.

Two rows of steps are read layer by layer, a layer being a convolution or dense layer and all that stands behind it.
What makes no difference is none: ReLU before or after max pooling, padding that no window reaches, a pooling that
counts by ceil where nothing is left over, an alpha in another dialect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isclose
from typing import NamedTuple

from alexnet_np.errors import WeightsError
from alexnet_np.ops.local_response_norm import Geometry
from alexnet_np.weights.lrn import geometry
from alexnet_np.weights.steps import Step, output_size

SILENT = ("dropout", "flatten", "softmax", "adaptive")  # which change no logit, or follow from the shapes
WORDS = {"max_pool": "pool", "avg_pool": "average pool", "lrn": "norm", "relu": "ReLU"}
CLOSE = 1e-4  # relative; constants are written in float32, or with a few digits


class Block(NamedTuple):
    """A convolution or a dense layer, and what stands behind it."""

    weight: Step
    behind: list[Step]


def differences(
    have: Sequence[Step], want: Sequence[Step], kernels: Sequence[tuple[int, int]], side: int | None
) -> list[str]:
    """What `have` is and `want` is not, in words, the first layer first; empty where they compute the same.

    `kernels`: of the convolutions in order; `side` of a square input, for which paddings and counts are compared.
    """
    ours, theirs = list(_blocks(have)), list(_blocks(want))
    if [block.weight.kind for block in ours] != [block.weight.kind for block in theirs]:
        return [f"it has {len(ours)} layers of weights, not {len(theirs)}, or in another order"]
    found: list[str] = []
    size, windows = (side, side) if side else None, iter(kernels)
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True), 1):
        kernel = next(windows, (1, 1)) if mine.weight.kind == "conv" else (1, 1)
        pairs = [(mine.weight, other.weight), *zip(mine.behind, other.behind, strict=False)]
        if [each.kind for each in mine.behind] != [each.kind for each in other.behind]:
            found.append(f"behind layer {number} it has {_named(mine.behind)}, not {_named(other.behind)}")
            return found
        for one, two in pairs:
            said = _difference(one, two, kernel, size)
            found += [f"layer {number}: {each}" for each in said]
            size = _next(one, kernel, size)
    return found


def _blocks(steps: Sequence[Step]) -> Iterator[Block]:
    block: Block | None = None
    for each in steps:
        if each.kind in ("conv", "linear"):
            if block is not None:
                yield block
            block = Block(each, [])
        elif each.kind not in SILENT and block is not None and not _is_nothing(each):
            block.behind.append(each)
            if each.kind == "relu" and len(block.behind) > 1 and block.behind[-2].kind == "max_pool":
                block.behind[-2:] = [each, block.behind[-2]]  # the same either way
    if block is not None:
        yield block


def _is_nothing(each: Step) -> bool:
    """A mean of one number, which torch's exporter writes for adaptive pooling that changes no size."""
    return each.kind == "avg_pool" and each.settings["kernel"] == (1, 1)


def _named(steps: Sequence[Step]) -> str:
    return ", ".join(WORDS.get(each.kind, each.kind) for each in steps) or "nothing"


def _difference(one: Step, two: Step, kernel: tuple[int, int], size: tuple[int, int] | None) -> Iterator[str]:
    """What is said of one step and is not true of the other of the same kind."""
    if one.kind == "conv" and one.settings["groups"] not in (1, two.settings["groups"]):  # 1: zeros may do the same
        yield f"{one.settings['groups']} groups, not {two.settings['groups']}"
    if one.kind in ("max_pool", "avg_pool"):
        kernel = one.settings["kernel"]
        if kernel != two.settings["kernel"]:
            yield f"pooling {_by(kernel)}, not {_by(two.settings['kernel'])}"
            return
    if one.kind in ("conv", "max_pool", "avg_pool"):
        yield from _windows(one, two, kernel, size)
    if one.kind == "lrn":
        yield from _norms(one, two)


def _windows(one: Step, two: Step, kernel: tuple[int, int], size: tuple[int, int] | None) -> Iterator[str]:
    if one.settings["stride"] != two.settings["stride"]:
        yield f"stride {_by(one.settings['stride'])}, not {_by(two.settings['stride'])}"
        return
    begins = [tuple(before for before, _ in each.settings["padding"]) for each in (one, two)]
    if begins[0] != begins[1]:
        yield f"padding {one.settings['padding']}, not {two.settings['padding']}"
    elif size is not None:
        maps = [output_size(each, size, kernel) for each in (one, two)]
        if maps[0] != maps[1]:
            yield f"maps of {_by(maps[0])}, not {_by(maps[1])}, from {_by(size)}"


def _norms(one: Step, two: Step) -> Iterator[str]:
    try:
        mine, other = geometry(one), geometry(two)
    except WeightsError as error:
        yield str(error)
        return
    if (mine.region, mine.low, mine.high) != (other.region, other.low, other.high):
        yield f"a norm {_reaching(mine)}, not {_reaching(other)}"
    if mine.groups != other.groups and mine.region == "across":  # within a map nobody sees another tower
        yield f"a norm over {_towers(mine)}, not over {_towers(other)}"
    for name in ("scale", "beta", "k"):
        if not isclose(getattr(mine, name), getattr(other, name), rel_tol=CLOSE):
            yield f"a norm with {name} {getattr(mine, name):.6g}, not {getattr(other, name):.6g}"


def _towers(sees: Geometry) -> str:
    return "all maps" if sees.groups == 1 else f"each of {sees.groups} towers"


def _reaching(sees: Geometry) -> str:
    return f"{sees.region} maps that reaches {sees.low} below and {sees.high} above"


def _next(each: Step, kernel: tuple[int, int], size: tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None or each.kind not in ("conv", "max_pool", "avg_pool"):
        return size
    return output_size(each, size, kernel if each.kind == "conv" else each.settings["kernel"])


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
