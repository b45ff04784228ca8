"""Which of the arrays in a file are the weights: the one mapping whose names and shapes fit, whatever surrounds it.

A file is a tree: dicts in dicts, lists, objects that nobody made. Its arrays form a flat list of names, such as
`state_dict.model.module.features.0.weight`; containers and prefixes are then the same thing, the beginning of a name.

Where it is known what network the weights are for (`fit` in fitting.py), that mapping is taken which has all its names
behind one beginning, with the right shapes; where the names are another program's, the one with its shapes. Where it is
not known (`mapping`), that whose shapes form a chain, each layer taking as many inputs as the one before has outputs.
Optimizers keep arrays of the same shapes, under names of their own, which are never meant. Two mappings that fit are an
error that names both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from os.path import commonprefix
from types import NoneType
from typing import Any, NamedTuple, TypeVar

from alexnet_np.errors import WeightsError
from alexnet_np.text import listed, quoted
from alexnet_np.weights.leaves import Contents, Holder, Inert, Leaf, Shape

# What torch's wrappers put among the names: DataParallel and its kin, torch.compile, FSDP, Fabric.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
MODULE = ("_parameters", "_buffers", "_modules")  # where a pickled torch.nn.Module keeps what is in it
# Whose arrays have the weights' shapes and are none: optimizers, of torch, of this package and of cuda-convnet; and a
# mean image, beside the weights of a run.
OTHERS = re.compile(
    r"mean_image|optim|optimizers?(_\w+)?|momentum(_\w+)?|(max_)?exp_avg\w*|square_avg|acc_delta|history|\w+Inc|grad"
)
MAX_DEPTH = 60  # containers in containers
MAX_NAME = 500  # characters; torch's longest have some hundred
MAX_OTHERS = 100  # things beside the arrays that are named

Keys = tuple[str, ...]
T = TypeVar("T")


class Entry:
    """An array and the keys that lead to it; its name, and that in its smallest parts, whatever parts them."""

    def __init__(self, keys: Keys, leaf: Leaf) -> None:
        self.keys, self.leaf = keys, leaf
        self.name = ".".join(keys)
        self.parts: Keys = tuple(re.split(r"[./]", self.name))

    def __str__(self) -> str:
        return f"{quoted(self.name)} {self.leaf.shape}"


class Found(NamedTuple):
    """A mapping name -> array in a file."""

    where: str  # the beginning that was taken off every name; "" for none
    leaves: dict[str, Leaf]
    left: list[str]  # what else is in the file, in words


def entries(tree: Any) -> tuple[list[Entry], list[str]]:
    """The arrays in a tree, in order, and what else is in it, in words. Every container is looked at once."""
    found: list[Entry] = []
    others: list[str] = []
    seen: set[int] = set()
    waiting: list[tuple[Keys, Any]] = [((), tree)]
    while waiting:
        keys, node = waiting.pop()
        if isinstance(node, Leaf):
            found += [Entry(keys, node)] if keys else []
            continue
        if id(node) in seen and isinstance(node, (dict, list, tuple, Holder, Inert)):
            continue
        seen.add(id(node))
        if keys and not _is_container(node) and len(others) < MAX_OTHERS:
            others.append(f"{quoted('.'.join(keys))} ({_kind(node)})")
        if len(keys) < MAX_DEPTH:
            waiting += [((*keys, *key), child) for key, child in reversed(list(_children(node)))]
    return found, others


def _children(node: Any) -> Iterator[tuple[Keys, Any]]:
    """(keys, what is there). What fills an object comes without a key: it is the object's contents."""
    if isinstance(node, dict):
        names = ((str(key), value) for key, value in node.items() if isinstance(key, (str, int)))
        yield from (((name,), value) for name, value in names if len(name) <= MAX_NAME)
    elif isinstance(node, (list, tuple)):
        yield from (((str(i),), value) for i, value in enumerate(node))
    elif isinstance(node, Holder):
        yield (), node.content
    elif isinstance(node, Inert):
        state = node.state
        if isinstance(state, dict) and any(key in state for key in MODULE):
            yield from (((), state[key]) for key in MODULE if key in state)
        elif isinstance(state, dict) and _is_module(node):  # of TorchScript: what is set there is no part of weights
            yield from (((str(key),), held) for key, held in state.items() if not isinstance(held, (bool, NoneType)))
        else:
            yield from (((), held) for held in (node.args, state, node.items) if isinstance(held, (dict, list, tuple)))


def _is_container(node: Any) -> bool:
    """Whether it is named only for what is in it."""
    return isinstance(node, (dict, list, tuple, Holder)) or _is_module(node)


def _is_module(node: Any) -> bool:
    """A pickled torch.nn.Module, or one of TorchScript, whose settings lie among its arrays."""
    is_inert = isinstance(node, Inert)
    return is_inert and (node.kind.startswith("__torch__.") or isinstance(node.state, dict) and MODULE[0] in node.state)


def _kind(node: Any) -> str:
    return node.kind[:100] if isinstance(node, Inert) else type(node).__name__


def is_other(entry: Entry) -> bool:
    """Whether this is an array that an optimizer keeps, by its name."""
    return any(OTHERS.fullmatch(part) for part in entry.parts)


def weights_of(group: Iterable[Entry]) -> list[Entry]:
    """The arrays that multiply: those with two axes or more."""
    return [entry for entry in group if len(entry.leaf.shape) > 1]


def is_chain(shapes: Sequence[Shape]) -> bool:
    """Whether weights of these shapes, in order or the convolutions first, can follow one another in a network."""
    convolutions: list[Shape] = [shape for shape in shapes if len(shape) == 4]
    dense: list[Shape] = [shape for shape in shapes if len(shape) == 2]
    if len(shapes) < 2 or len(convolutions) + len(dense) != len(shapes):
        return False
    orders: list[list[Shape]] = [list(shapes), convolutions + dense]
    orders += [
        *([shape[::-1] for shape in order] for order in orders),  # (..., in, out), as TensorFlow has them
        *([shape[::-1] if len(shape) == 2 else shape for shape in order] for order in orders),  # as Paddle has them
    ]
    return any(all(_follows(*pair) for pair in pairwise(order)) for order in orders)


def _follows(before: Shape, after: Shape) -> bool:
    """Whether a layer takes what the one before gives; shapes are (out, in, ...). Groups divide, a map multiplies."""
    given, taken = before[0], after[1]
    if not given or not taken:
        return False
    if len(after) == 4:
        return len(before) == 4 and given % taken == 0
    return taken % given == 0 if len(before) == 4 else taken == given


def groups(found: Iterable[Entry], accept: Callable[[list[Entry]], T | None]) -> list[T]:
    """What `accept` makes of every group of arrays behind one beginning, where that is not None.

    From the outside in: a group that is accepted is not looked into. Two names for the same arrays are one group.
    """
    result: list[T] = []
    known = set()
    waiting: list[tuple[int, list[Entry]]] = [(0, [entry for entry in found if not is_other(entry)])]
    while waiting:
        depth, group = waiting.pop()
        accepted = accept(group)
        if accepted is not None:
            identity = frozenset(entry.leaf.identity for entry in weights_of(group))
            result += [] if identity in known else [accepted]
            known.add(identity)
            continue
        below: dict[str, list[Entry]] = {}
        for entry in group:
            if len(entry.parts) > depth + 1:
                below.setdefault(entry.parts[depth], []).append(entry)
        waiting += reversed([(depth + 1, inner) for inner in below.values()])
    return result


def networks(found: Iterable[Entry]) -> list[list[Entry]]:
    """The groups whose weights form a chain; where there are several, those with convolutions and dense layers."""
    chains = groups(found, lambda group: group if is_chain([e.leaf.shape for e in weights_of(group)]) else None)
    both_kinds = [chain for chain in chains if {len(entry.leaf.shape) for entry in weights_of(chain)} == {2, 4}]
    return both_kinds if len(both_kinds) == 1 else chains


def mapping(contents: Contents) -> Found:
    """The mapping in a file that is a network's, by its shapes; where none is, all arrays that there are.

    Names are those in its container, without a beginning that torch's wrappers put before all of them. Raises
    WeightsError where there is no array, or where two mappings could be meant.
    """
    found, others = entries(contents.tree)
    if not found:
        raise WeightsError(nothing(contents.tree, others))
    nets = [weights_of(group) for group in networks(found)]
    if len(nets) > 1:
        raise WeightsError(both([beginning(weights) for weights in nets]))
    container = _container(nets[0]) if nets else _whole(found)
    chosen = [entry for entry in found if entry.keys[: len(container)] == container and not (nets and is_other(entry))]
    names = {entry: ".".join(entry.keys[len(container) :]) for entry in chosen}
    prefix = wrapping([names[entry] for entry in (nets[0] if nets else chosen)])
    leaves = {name.removeprefix(prefix): entry.leaf for entry, name in names.items() if name.startswith(prefix)}
    where = ".".join(filter(None, (*container, prefix.rstrip("."))))
    taken = {id(leaf) for leaf in leaves.values()}
    return Found(where, leaves, [str(entry) for entry in found if id(entry.leaf) not in taken] + others)


def only(contents: Contents, part: str | None) -> Contents:
    """What a file holds under the name of a container, or behind another beginning; all of it for None.

    Raises WeightsError where there is nothing.
    """
    if part is None:
        return contents
    found, _ = entries(contents.tree)
    inside = {entry.name: entry.leaf for entry in found if f"{entry.name}.".startswith(f"{part}.")}
    if not inside:
        names = listed([entry.name for entry in found], 5) or "none"
        raise WeightsError(f"holds no arrays under the name {quoted(part)}; there are {names}")
    return replace(contents, tree={name.removeprefix(f"{part}."): leaf for name, leaf in inside.items()})


def beginning(group: Sequence[Entry]) -> str:
    """What the names of a group begin with."""
    return ".".join(commonprefix([entry.parts[:-1] for entry in group]))


def _container(group: Sequence[Entry]) -> Keys:
    return tuple(commonprefix([entry.keys[:-1] for entry in group]))


def _whole(found: Sequence[Entry]) -> Keys:
    """The keys before all arrays, where none of them form a network; numbers beside the arrays do not count.

    Raises WeightsError where there are two containers of the same names and shapes.
    """
    arrays = [entry for entry in found if entry.leaf.shape and not is_other(entry)] or list(found)
    container = _container(arrays)
    inner: dict[str, dict[Keys, Shape]] = {}
    for entry in arrays:
        key, *rest = entry.keys[len(container) :]
        if rest:
            inner.setdefault(key, {})[tuple(rest)] = entry.leaf.shape
    for key, group in inner.items():
        twins = [other for other, shapes in inner.items() if shapes == group and len(group) > 1]
        if len(twins) > 1:
            raise WeightsError(both([".".join((*container, twin)) for twin in (key, *twins[1:])]))
    return container


def wrapping(names: Sequence[str]) -> str:
    """The wrappers, each with its dot, that all names begin with."""
    prefix = ""
    while True:
        first = {name[len(prefix) :].partition(".")[0] for name in names}
        if len(first) != 1 or not first <= WRAPPERS or any(name[len(prefix) :] in first for name in names):
            return prefix
        prefix += f"{first.pop()}."


def both(places: Sequence[str]) -> str:
    """The error where several mappings could be meant."""
    named = " and ".join(quoted(place) if place else "the outermost names" for place in places[:5])
    last = places[-1] if places[-1].isprintable() and len(places[-1]) < 100 else "NAME"
    return (
        f"holds {len(places)} sets of weights that fit: {named}; choose one: read it with "
        f"anp.weights.read(path, part={last!r}), or write it to a file of its own with "
        f"`alexnet weights convert --part {last}`"
    )


def nothing(tree: Any, others: Sequence[str]) -> str:
    """The error where there is no array."""
    if isinstance(tree, (Leaf, Holder)):
        return "holds a bare tensor, an array without a name: save a dict of name -> array"
    if not isinstance(tree, (dict, list, tuple)):
        others = [f"an object of type {_kind(tree)}", *others]
    inside = f"; what is in it, unused: {', '.join(others[:5])}" if others else ""
    return f"holds no arrays{inside}"
