"""Do weights fit a model? Their names and shapes, and on request that every number is one.

`fit` finds, among all that a file or a dict holds, the one mapping that is this model's, and gives it the model's
names: by the names, whatever they begin with and whatever wrappers stand among them; where the names are those of
another program, by the shapes, each of which only one layer has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os.path import commonprefix
from typing import Any, NamedTuple

from alexnet_np import arguments
from alexnet_np.device import array_module, as_array
from alexnet_np.errors import WeightsError
from alexnet_np.text import listed, quoted
from alexnet_np.weights import finding, layouts, seal
from alexnet_np.weights.comparing import differences
from alexnet_np.weights.finding import Entry
from alexnet_np.weights.leaves import Contents, Leaf, Shape
from alexnet_np.weights.others import recognised, said_of
from alexnet_np.weights.steps import Step

ARRAYS = "a mapping name -> array"

Expected = Mapping[str, Shape | None]  # None: whatever shape it has, it is not wanted (the head, when fine-tuning)


class Wanted(NamedTuple):
    """What a model wants: its arrays, and what else decides how the numbers are to be taken."""

    shapes: Expected
    channels: str | None = None  # what its first convolution takes, "RGB" or "BGR"
    steps: tuple[Step, ...] = ()  # its layers, to be compared with those that a file says
    size: int | None = None  # the side of its input
    name: str = "the model"

    @property
    def groups(self) -> dict[str, int]:
        """Of the weights of convolutions that have any."""
        counts = {f"{each.name}.weight": each.settings["groups"] for each in self.steps if each.kind == "conv"}
        return {name: count for name, count in counts.items() if count > 1 and self.shapes.get(name) is not None}

    @property
    def dense(self) -> dict[str, Shape]:
        """The shapes that these would have without groups."""
        grouped = [(name, count, self.shapes[name] or ()) for name, count in self.groups.items()]
        return {name: (shape[0], shape[1] * count, *shape[2:]) for name, count, shape in grouped}

    @property
    def kernels(self) -> list[tuple[int, int]]:
        """Of the convolutions, in order."""
        return [(shape[2], shape[3]) for shape in self.shapes.values() if shape is not None and len(shape) == 4]


class Fit(NamedTuple):
    """The arrays for a model, by its own names, unread."""

    where: str  # what their names in the file begin with
    leaves: dict[str, Leaf]
    names: dict[str, str]  # the model's name -> the file's
    left: list[str]  # what else is in the file, in words
    by: str  # "names" or "shapes"
    changed: list[str]  # what was done to the numbers, in words


def fit(contents: Contents, wanted: Wanted) -> Fit:
    """The one mapping in `contents` that has the wanted names, or the shapes. Raises WeightsError.

    Where the file says so, its numbers are carried over: a first convolution that takes BGR gets its channels turned
    round for a network of RGB, and the other way; weights behind a dropout that scales in testing are multiplied by
    what it keeps, as our dropout scales in training. Both are exact.
    """
    expected = wanted.shapes
    if other := unlike(contents, wanted):
        raise WeightsError(
            f"weights of another network than {wanted.name}, of the same shapes: {other[0]}; `alexnet weights inspect` "
            "says which, and anp.weights.read gives the numbers alone"
        )
    found, others = finding.entries(contents.tree)
    if not found:
        raise WeightsError(finding.nothing(contents.tree, others))
    candidates = _by_names(found, expected)
    fits, by = _fits(candidates, found, expected)
    dense = {} if fits else wanted.dense
    if dense:
        fits, by = _fits(candidates, found, {**expected, **dense})
    if len(fits) > 1:
        raise WeightsError(finding.both([_beginning(each) for each in fits]))
    if not fits:
        raise WeightsError(_nearest(candidates, found, expected))
    result = _fit(fits[0], expected, found, others, by)
    return _carried(_grouped(result, wanted) if dense else result, contents, wanted)


def _fits(
    candidates: Mapping[finding.Keys, _Candidate], found: Sequence[Entry], expected: Expected
) -> tuple[list[_Candidate], str]:
    """All that have the expected shapes, by their names or, where those are others, by the shapes alone; and which."""
    fits = [each for each in candidates.values() if _fault(each, expected) is None]
    if fits or _name_layers(candidates):
        return _distinct(fits), "names"
    return _distinct(_by_shapes(found, expected)), "shapes"


class _Choice(NamedTuple):
    """An array for one of the model's, and the same in torch's layout."""

    entry: Entry
    leaf: Leaf


_Candidate = dict[str, list[_Choice]]  # the model's name -> the arrays that could be meant


def _by_names(found: Sequence[Entry], expected: Expected) -> dict[finding.Keys, _Candidate]:
    """For every beginning, the arrays whose names are the model's behind it; wrappers among the parts do not count."""
    wanted = {tuple(name.split(".")): name for name in expected}
    lengths = sorted({len(parts) for parts in wanted}, reverse=True)
    candidates: dict[finding.Keys, _Candidate] = {}
    for entry in found:
        if finding.is_other(entry):
            continue
        parts = tuple(part for part in entry.parts if part not in finding.WRAPPERS)
        for length in lengths:
            name = wanted.get(parts[-length:])
            if name is not None:
                candidates.setdefault(parts[:-length], {}).setdefault(name, []).append(_Choice(entry, entry.leaf))
    return candidates


def _fault(candidate: _Candidate, expected: Expected) -> str | None:
    """Why the arrays with the model's names are not its weights; None if they are."""
    missing = [name for name, shape in expected.items() if name not in candidate and shape is not None]
    shapes = {name: candidate[name][0].entry.leaf.shape for name in expected if name in candidate}
    wrong = [
        f"{name} is {shapes[name]}, not {want}"
        for name, want in expected.items()
        if name in shapes and want is not None and shapes[name] != want
    ]
    faults = {"missing": listed(missing) if missing else "", "wrong shape": ", ".join(wrong)}
    return "; ".join(f"{fault}: {names}" for fault, names in faults.items() if names) or None


def _name_layers(candidates: Mapping[finding.Keys, _Candidate]) -> bool:
    """Whether somebody has the model's names: then its weights are those, or none."""
    return any(len(candidate) > 2 for candidate in candidates.values())


def _by_shapes(found: Sequence[Entry], expected: Expected) -> list[_Candidate]:
    """The groups of arrays whose shapes are the model's, in torch's layout or another."""

    def accept(group: list[Entry]) -> _Candidate | None:
        return next(filter(None, (_assigned(group, expected, layout) for layout in layouts.LAYOUTS)), None)

    return finding.groups(found, accept)


def _assigned(group: Sequence[Entry], expected: Expected, layout: str) -> _Candidate | None:
    """Every weight in `group` to the layer of its shape, and with it its bias; None where they are not the model's."""
    weights = finding.weights_of(group)
    names = [name for name in expected if name.endswith("weight")]
    if len(weights) != len(names):
        return None
    free, result, maps = list(weights), {}, None
    for name in names:
        want = expected[name]
        entry = next((each for each in free if _is_shape(each, want, layout, each is weights[-1])), None)
        if entry is None:
            return None
        free.remove(entry)
        if want is not None:
            leaf = layouts.turned(entry.leaf, want, layout, maps if len(want) == 2 else None)
            result[name] = [_Choice(entry, leaf)]
            maps = want[0] if len(want) == 4 else None
        bias = f"{name.removesuffix('weight')}bias"
        if expected.get(bias) is not None:
            choice = _bias(entry, group, expected[bias])
            if choice is None:
                return None
            result[bias] = [choice]
    return result


def _is_shape(entry: Entry, want: Shape | None, layout: str, is_last: bool) -> bool:
    return is_last if want is None else layouts.is_same_layer(layouts.torch_shape(entry.leaf.shape, layout), want)


def _bias(weight: Entry, group: Sequence[Entry], want: Shape | None) -> _Choice | None:
    """The vector of a weight's layer: the one with whose name its own agrees longest, or which stands behind it."""
    inside = [entry for entry in group if entry.parts[:-1] == weight.parts[:-1] and entry.leaf.shape == want]
    behind = group[list(group).index(weight) + 1 :][:1]
    nearest = max(
        inside, key=lambda entry: (len(commonprefix([entry.name, weight.name])), entry in behind), default=None
    )
    return None if nearest is None else _Choice(nearest, nearest.leaf)


def _distinct(fits: Sequence[_Candidate]) -> list[_Candidate]:
    """One of several names for the same arrays, and a candidate of its own for each of several arrays for one name."""
    single: dict[Any, _Candidate] = {}
    for candidate in fits:
        for choice in range(max(map(len, candidate.values()))):
            chosen = {name: [choices[min(choice, len(choices) - 1)]] for name, choices in candidate.items()}
            identity = frozenset((name, choices[0].entry.leaf.identity) for name, choices in chosen.items())
            single.setdefault(identity, chosen)
    return list(single.values())


def _beginning(candidate: _Candidate) -> str:
    return finding.beginning([choices[0].entry for choices in candidate.values()])


def _nearest(candidates: Mapping[Any, _Candidate], found: Sequence[Entry], expected: Expected) -> str:
    """The error where nothing fits: what is wrong with the arrays that come nearest."""
    nearest = max(candidates.values(), key=len, default={})
    if len(nearest) > 2:
        return f"the weights do not fit the model; {_fault(nearest, expected)}"
    names = listed([entry.name for entry in found], 3)
    weights = [entry.leaf.shape for entry in finding.weights_of(found) if not finding.is_other(entry)]
    if other := recognised(weights):
        return f"the weights do not fit the model: they are of {said_of(other)}"
    shapes = list(map(str, weights))
    more = f" and {len(shapes) - 8} more" if len(shapes) > 8 else ""
    return (
        f"the weights do not fit the model; {_fault({}, expected)}; and what is there ({names}) does not have its "
        f"shapes: {', '.join(shapes[:8]) or 'no weight'}{more}"
    )


def _fit(candidate: _Candidate, expected: Expected, found: Sequence[Entry], others: list[str], by: str) -> Fit:
    chosen = {name: candidate[name][0] for name, want in expected.items() if want is not None}
    taken = {id(choice.entry.leaf) for choice in chosen.values()}
    return Fit(
        _beginning(candidate),
        {name: choice.leaf for name, choice in chosen.items()},
        {name: choice.entry.name for name, choice in chosen.items()},
        [str(entry) for entry in found if id(entry.leaf) not in taken] + others,
        by,
        [],
    )


def _grouped(fit: Fit, wanted: Wanted) -> Fit:
    """Grouped convolutions out of dense ones, whose other numbers have to be zero; that is seen when they are read."""
    leaves, changed = dict(fit.leaves), list(fit.changed)
    for name, count in wanted.groups.items():
        leaf, shape = leaves[name], wanted.shapes[name]
        assert shape is not None
        read = _changed(leaf, partial(layouts.in_groups, count, fit.names[name])).read
        leaves[name] = Leaf(shape, leaf.dtype, read)
        changed.append(f"{name}: {count} groups out of a dense convolution")
    return fit._replace(leaves=leaves, changed=changed)


def _carried(fit: Fit, contents: Contents, wanted: Wanted) -> Fit:
    """The same, with the numbers for our order of channels and our dropout."""
    leaves, changed = dict(fit.leaves), list(fit.changed)
    first = next(iter(leaves))
    if {wanted.channels, contents.channels} == {"RGB", "BGR"}:
        leaves[first] = _changed(leaves[first], lambda array: array[:, ::-1])
        changed.append(f"{first}: channels from {contents.channels} to {wanted.channels}")
    factors = {f"{name}.weight": keep for name, keep in kept(contents.steps).items()}
    for ours, theirs in fit.names.items():
        if theirs in factors:
            leaves[ours] = _changed(leaves[ours], partial(_times, factors[theirs]))
            changed.append(f"{ours}: times {factors[theirs]:g}, for its dropout scaled in testing")
    return fit._replace(leaves=leaves, changed=changed)


def unlike(contents: Contents, wanted: Wanted) -> list[str]:
    """In what the layers that a file says are not the wanted ones. A file of ours says itself what it is."""
    if not contents.steps or not wanted.steps or seal.KEY in contents.metadata:
        return []
    side = contents.input[1] if contents.input and contents.input[1] == contents.input[2] else wanted.size
    return differences(contents.steps, wanted.steps, wanted.kernels, side)


def kept(steps: Sequence[Step]) -> dict[str, float]:
    """What the weights behind a dropout that scales in testing have to be multiplied by, by the layer's name."""
    result, keep = {}, 1.0
    for each in steps:
        if each.kind == "dropout" and each.settings["scaling"] == "testing":
            keep *= 1 - each.settings["p"]
        elif each.kind in ("linear", "conv"):
            if keep != 1:
                result[each.name] = keep
            keep = 1.0
    return result


def _times(factor: float, array: Any) -> Any:
    return array * array.dtype.type(factor)


def _changed(leaf: Leaf, change: Callable[[Any], Any]) -> Leaf:
    return Leaf(leaf.shape, leaf.dtype, lambda: change(leaf.read()))


def match(
    mapping: Mapping[str, Any], expected: Mapping[str, Shape], strict: bool = True
) -> tuple[list[str], list[str]]:
    """The names that `expected` has and `mapping` lacks (missing), and the other way round (unexpected).

    Raises WeightsError, one line with every such name and every array of a wrong shape; with strict=False, as in torch,
    missing and unexpected names pass and wrong shapes still do not.
    """
    mapping = arguments.mapping("weights.match", "mapping", mapping, ARRAYS)
    expected = arguments.mapping("weights.match", "expected", expected, "a mapping name -> shape")
    strict = arguments.flag("weights.match", "strict", strict)
    missing = [name for name in expected if name not in mapping]
    unexpected = [name for name in mapping if name not in expected]
    wanted = {name: arguments.shape("weights.match", str(name), shape) for name, shape in expected.items()}
    shapes = {name: (_shape(name, mapping[name]), wanted[name]) for name in expected if name in mapping}
    wrong = [f"{name} is {have}, not {want}" for name, (have, want) in shapes.items() if tuple(have) != want]
    faults = {
        "missing": listed(missing) if strict else "",
        "unexpected": listed(unexpected) if strict else "",
        "wrong shape": ", ".join(wrong),
    }
    if any(faults.values()):
        text = "; ".join(f"{fault}: {names}" for fault, names in faults.items() if names)
        raise WeightsError(f"the weights do not fit the model; {text}")
    return missing, unexpected


def _shape(name: Any, value: Any) -> Shape:
    return tuple(value.shape) if hasattr(value, "shape") else as_array(value, str(name)).shape


def check_finite(mapping: Mapping[str, Any]) -> None:
    """Raises WeightsError naming the arrays that hold NaN or infinity, and how many of each."""
    faults = []
    mapping = arguments.mapping("weights.check_finite", "mapping", mapping, ARRAYS)
    for name, value in mapping.items():
        array = as_array(value, str(name))
        if array.dtype.kind not in "biufc":
            raise WeightsError(f"{quoted(str(name))} has dtype {array.dtype}, which is no number")
        xp = array_module(array)
        if not xp.isfinite(array).all():
            nans, infinite = int(xp.isnan(array).sum()), int(xp.isinf(array).sum())
            faults.append(f"{quoted(name)} ({nans} NaN, {infinite} infinite of {array.size})")
    if faults:
        more = f" and {len(faults) - 5} more arrays" if len(faults) > 5 else ""
        raise WeightsError(
            f"not finite: {', '.join(faults[:5])}{more}; the training that made them diverged, or the file is damaged"
        )
