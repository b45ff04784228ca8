"""Which of the published networks a file's weights are of, and by which evidence.

    judge(contents)     every preset that they may be of, with its sizes, and why the others are out

Five of the presets have the same shapes. What tells them apart is the order of the layers and the constants in them,
where the file has these; the size of the input; whose names the arrays have; how the file is put together. What the
file itself is called is no evidence. Where nothing tells, several presets remain, and nobody chooses among them but
who knows where the file is from. All that is known of a preset is read from its record: a further record is recognised
without a line here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from math import prod
from typing import Any, NamedTuple

from alexnet_np.description import Description, described_in
from alexnet_np.errors import WeightsError
from alexnet_np.outline import comparable
from alexnet_np.presets import PRESETS, Preset, describe, preset_of_weights
from alexnet_np.text import quoted
from alexnet_np.weights import finding, others
from alexnet_np.weights.fitting import Fit, Wanted, fit, unlike
from alexnet_np.weights.layouts import LAYOUTS, torch_shape
from alexnet_np.weights.leaves import Contents, Leaf, Shape

CAFFES = "BVLC/caffe: models/"  # a source that begins so: one of Caffe's own networks
MAX_WIDTH = 8.0  # of a preset's own: nothing larger is built to be compared
HALVINGS = {2.0**-n for n in range(7)}  # widths that one makes a network narrow by: few units do not show them
MOST_PIXELS = 1 << 24  # of a mean image
MAX_SIZES = 20  # that are tried; a network's own weights leave two or three


class Sizes(NamedTuple):
    """What shapes say of a network, beside the preset."""

    num_classes: int
    in_channels: int
    width: float


class Verdict(NamedTuple):
    """The presets that weights may be of, and why."""

    possible: dict[str, Sizes]
    why: list[str]  # the evidence, in words
    excluded: dict[str, str]  # presets of these shapes that it is not, and why not
    dense: dict[str, Sizes]  # presets that it may be of, its grouped convolutions written as dense ones
    other: str | None = None  # a network that is none of the presets, by its name

    @property
    def preset(self) -> str | None:
        """The one that remains; None where none does, or several."""
        return next(iter(self.possible)) if len(self.possible) == 1 else None


def judge(contents: Contents) -> Verdict:
    """Whose weights a file holds. Raises WeightsError where it holds two sets of weights.

    What can be loaded into a preset is what this finds possible, and the other way round: both ask `fit`.
    """
    shapes = [each.leaf.shape for each in finding.weights_of(finding.entries(contents.tree)[0])]
    fits = {name: found for name in PRESETS if (found := _fitting(name, contents, shapes))}
    if not fits:
        return _of_none(contents)
    sizes, first = {name: found for name, (found, _) in fits.items()}, next(iter(fits.values()))[1]
    taken = [leaf.shape for leaf in first.leaves.values()]
    why = [f"{'names and shapes' if first.by == 'names' else 'shapes'}: {_listed(taken)}: {either(sizes)}"]
    excluded = {name: reason for name, found in sizes.items() if (reason := _unlike(name, found, contents))}
    possible = {name: found for name, found in sizes.items() if name not in excluded}
    if contents.steps:
        order = ", ".join(each.kind for each in contents.steps if each.kind != "dropout")
        why.append(f"layers: {order}" + ("" if possible else ": those of no preset of these shapes"))
        why += [f"not {name}: {reason}" for name, reason in excluded.items()]
    for evidence in (_by_input, _by_program, _by_structure):
        if len(possible) > 1:
            kept, said = evidence(possible, contents)
            if 0 < len(kept) < len(possible):
                possible = {name: possible[name] for name in kept}
                why.append(said)
    if len(possible) > 1:
        why.append(
            f"nothing in it tells {either(possible, 'and')} apart: they differ in the order and the constants of layers"
        )
    return Verdict(possible, why, excluded, {})


def _of_none(contents: Contents) -> Verdict:
    """What is said of weights that no preset has."""
    shapes = [leaf.shape for leaf in finding.mapping(contents).leaves.values()]
    other = others.recognised(shapes)
    if other is not None:
        return Verdict({}, [f"the shapes {_listed(shapes)} are those of {others.said_of(other)}"], {}, {}, other.name)
    why = [f"no preset, at any width, has the shapes {_listed(shapes)}"]
    fits = {name: found[0] for name in PRESETS if (found := _fitting(name, contents, shapes, is_dense=True))}
    if fits:
        why.append(f"but without groups {either(fits)} would: it loads if the numbers between groups are zero")
    return Verdict({}, why, {}, fits)


def identified(contents: Contents, preset: str | None) -> Description:
    """The network of what was opened; `preset`: which one it should be (identity.identify). Raises WeightsError."""
    said = said_in(contents)
    if said is not None:
        return said
    verdict = judge(contents)
    chosen = verdict.preset if preset is None else preset
    if chosen in verdict.possible:
        return describe(chosen, *verdict.possible[chosen])
    if chosen in verdict.excluded:
        other = f", but of {either(verdict.possible)}" if verdict.possible else ""
        raise WeightsError(f"weights not of {chosen}{other}: {verdict.excluded[chosen]}")
    if not verdict.possible and preset is not None:
        return describe(preset, *verdict.dense.get(preset, ()))
    raise WeightsError(_open(verdict, preset))


def _open(verdict: Verdict, preset: str | None) -> str:
    """Why nobody can say which network it is."""
    if preset is not None:
        found = [str(describe(name, *sizes)) for name, sizes in verdict.possible.items()]
        return f"weights of {either(found)}, not of {preset}: leave the preset open (None)"
    if verdict.possible:
        return f"weights of {either(verdict.possible)}, and {verdict.why[-1]}: name the preset"
    if verdict.excluded:
        return (
            f"of no known network, at any width: with the shapes of {either(verdict.excluded)}, but no one's layers; "
            "`alexnet weights inspect` says why not, and anp.weights.read gives the numbers alone"
        )
    if verdict.other is not None:
        return f"not of a preset: {verdict.why[-1]}"
    return f"of no known network, at any width: {'; '.join(verdict.why)}"


def published_as(weights: Any) -> str | None:
    """The preset of published weights; None for any others."""
    from alexnet_np.weights import registry

    return preset_of_weights(weights) if isinstance(weights, str) and weights in registry.names() else None


def name_of(weights: Any) -> str:
    return "a mapping in memory" if isinstance(weights, Mapping) else str(weights)


@contextmanager
def contents_of(weights: Any) -> Iterator[Contents]:
    """What a published name, a file or a mapping holds, unread; errors begin with which."""
    from alexnet_np.weights import memory, registry  # only now: reading files needs more than building a network
    from alexnet_np.weights.reading import opened

    if not isinstance(weights, Mapping):
        with opened(registry.path_of(weights)) as contents:
            yield contents
        return
    try:
        yield memory.contents_of(weights)
    except WeightsError as error:
        raise WeightsError(f"{name_of(weights)}: {error}") from error


def said_in(contents: Contents) -> Description | None:
    """What the metadata says, if the arrays bear it out: nothing is built larger than what the file holds."""
    said = described_in(contents.metadata)
    if said is None:
        return None
    if said.preset not in PRESETS:
        raise WeightsError(f"says that it is of a preset {quoted(said.preset)}; there are {', '.join(PRESETS)}")
    shapes = [leaf.shape for leaf in finding.mapping(contents).leaves.values()]
    full = sum(map(prod, PRESETS[said.preset].weight_shapes))
    too_large = max(said.num_classes, said.in_channels, said.width**2 * full / 6) > sum(map(prod, shapes)) + 1e6
    if too_large or _weights(shapes) != _weights(wanted(said.preset, sizes_of(said)).shapes.values()):
        raise WeightsError(f"says that it is of {said}, which its weights are not: written anew by another program?")
    return said.with_arrays(lambda name: _array_beside(contents, name))


def _array_beside(contents: Contents, name: str) -> Any:
    """The numbers of an array that is no weight. Raises WeightsError where there is none, or a large one."""
    leaf = contents.tree.get(name) if isinstance(contents.tree, dict) else None
    if not isinstance(leaf, Leaf) or prod(leaf.shape) > MOST_PIXELS:
        raise WeightsError(f"damaged: says that it has an array {quoted(name)}, and has none of that kind")
    return leaf.read()


def sizes_of(said: Description) -> Sizes:
    return Sizes(said.num_classes, said.in_channels, said.width)


def _weights(shapes: Iterable[Shape | None]) -> Counter[Shape]:
    return Counter(shape for shape in shapes if shape is not None and len(shape) > 1)


def wanted(preset: str, found: Sizes) -> Wanted:
    """What weights of a preset at these sizes have to be like."""
    known = PRESETS[preset]
    features, avgpool, classifier = known.build(found.in_channels, found.num_classes, found.width, looking=True)
    leaves = [(f"features.{i}", layer) for i, layer in enumerate(features)]
    leaves += [("avgpool", avgpool), *((f"classifier.{i}", layer) for i, layer in enumerate(classifier))]
    shapes = {key: p.shape for title, layer in leaves for key, p in layer.named_parameters(title)}
    return Wanted(shapes, known.preprocessing.mode, comparable(leaves), known.preprocessing.crop, preset)


def _fitting(
    name: str, contents: Contents, shapes: Sequence[Shape], is_dense: bool = False
) -> tuple[Sizes, Fit] | None:
    """The sizes at which the weights fit a preset, whatever its layers do; None where they do not."""
    unjudged = replace(contents, steps=())  # what the file says of its layers is looked at later, by `_unlike`
    for found in islice(_sizes(PRESETS[name], shapes), MAX_SIZES):
        asked = wanted(name, found)
        if not _are_there({**asked.shapes, **(asked.dense if is_dense else {})}, shapes):
            continue
        with suppress(WeightsError):
            return found, fit(unjudged, asked if is_dense else asked._replace(steps=()))
    return None


def _are_there(needed: Mapping[str, Shape | None], shapes: Sequence[Shape]) -> bool:
    """Whether all these weights could be among arrays of these shapes: seen at once, where `fit` looks at each name."""
    for layout in LAYOUTS:
        have = {torch_shape(shape, layout) for shape in shapes if len(shape) in (2, 4)}
        have |= {(shape[0], prod(shape[1:])) for shape in have}  # a dense layer as a convolution over the whole map
        if _weights(needed.values()).keys() <= have:
            return True
    return False


def _unlike(name: str, found: Sizes, contents: Contents) -> str:
    return next(iter(unlike(contents, wanted(name, found))), "")


def _sizes(known: Preset, shapes: Sequence[Shape]) -> Iterator[Sizes]:
    """Every size at which shapes, in torch's layout or another, could be a preset's: its ends tell."""
    first, *_, inner, last = known.weight_shapes
    numbers = sum(prod(shape) for shape in shapes)
    tried: set[Sizes] = set()
    for layout in LAYOUTS:
        turned = dict.fromkeys(torch_shape(shape, layout) for shape in shapes if len(shape) in (2, 4))
        begins = [shape for shape in turned if len(shape) == 4 and shape[2:] == first[2:] and min(shape) > 0]
        ends: dict[int, list[int]] = {}  # units -> classes, of every dense layer that could be the last one
        for classes, hidden, *rest in turned:
            if all(side == 1 for side in rest) and classes:
                ends.setdefault(hidden, []).append(classes)
        widths = {shape[0] / inner[0] for shape in turned} | {shape[0] / first[0] for shape in begins} | HALVINGS
        for width in sorted(width for width in widths if 0 < width < MAX_WIDTH):
            for classes in ends.get(known.scaled(last[1], width), []):
                # nothing larger is built than what the file holds
                if width**2 * prod(inner) + classes * last[1] * width <= 2 * numbers:
                    found = dict.fromkeys(Sizes(classes, begin[1], width) for begin in begins)
                    yield from (sizes for sizes in found if sizes not in tried)
                    tried.update(found)


Evidence = tuple[list[str], str]


def _by_input(possible: Mapping[str, Any], contents: Contents) -> Evidence:
    if contents.input is None:
        return [], ""
    kept = [name for name in possible if PRESETS[name].preprocessing.crop == contents.input[1]]
    return kept, f"input: {'x'.join(map(str, contents.input))}: {either(kept)}"


def _by_program(possible: Mapping[str, Any], contents: Contents) -> Evidence:
    """Caffe's names for layers, in files that came from Caffe."""
    names = {entry.parts[0] for entry in finding.entries(contents.tree)[0]}
    if not {"conv1", "conv2", "fc6", "fc7", "fc8"} <= names:
        return [], ""
    kept = [name for name in possible if _folder(PRESETS[name])]
    return kept, f"names: conv1 to fc8 are Caffe's: {either(kept)}"


def _by_structure(possible: Mapping[str, Any], contents: Contents) -> Evidence:
    """A file that is put together as one well-known file is, and no other."""
    known = re.search(r", as \w+'s (\w+)\.npy", contents.format)
    kept = [] if known is None else [name for name in possible if _folder(PRESETS[name]) == known[1]]
    return kept, f"structure: {contents.format}: {either(kept)}"


def _folder(known: Preset) -> str:
    """The folder in which Caffe keeps a network, such as bvlc_reference_caffenet; "" for a network of others."""
    folders = [source.removeprefix(CAFFES).split("/")[0] for source in known.sources if source.startswith(CAFFES)]
    return folders[0] if folders else ""


def either(names: Mapping[str, Any] | Sequence[str], word: str = "or") -> str:
    *most, last = names or ["none"]
    return f"{', '.join(most)} {word} {last}" if most else last


def _listed(shapes: Sequence[Shape]) -> str:
    weights = [" x ".join(map(str, shape)) for shape in shapes if len(shape) > 1]
    return ", ".join(weights[:10]) + (f" and {len(weights) - 10} more" if len(weights) > 10 else "") or "of no weight"
