"""A network of MatConvNet in a .mat, such as imagenet-caffe-alex.mat.

`layers` is a row of structs with name, type, and either weights, a cell of two, or filters and biases. Filters are
H x W x I x O, and a dense layer is a convolution over the whole map, 6x6x256x4096. MatConvNet takes RGB: its import
from Caffe turns the channels of the first convolution round. Its normalisation has [n k alpha beta], alpha undivided.

Source: vlfeat/matconvnet, utils/import-caffe.py, matlab/simplenn/vl_simplenn_tidy.m, matlab/vl_nnnormalize.m.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from alexnet_np.errors import WeightsError
from alexnet_np.weights.layouts import layered
from alexnet_np.weights.leaves import Contents, Leaf
from alexnet_np.weights.steps import Step, step


def contents(tree: dict[str, Any]) -> Contents | None:
    """The network among the variables of a .mat; None where there is none. Raises WeightsError."""
    net = tree["net"] if isinstance(tree.get("net"), dict) else tree
    layers = net.get("layers")
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, dict) for layer in layers):
        return None
    named = {_text(layer, "name") or f"layer{i + 1}": layer for i, layer in enumerate(layers)}
    arrays = {name: found for name, layer in named.items() if (found := _arrays(layer))}
    steps = [each for name, layer in named.items() for each in _steps(name, layer)]
    turned, grouped = layered(arrays, "tensorflow"), _grouped(steps, arrays)
    return Contents(".mat of MatConvNet", turned, grouped, channels="RGB", input=_input(net))


def _input(net: Mapping[str, Any]) -> tuple[int, ...] | None:
    """(C, H, W): normalization.imageSize is H, W, C, in a struct `meta` since 2015."""
    meta = net["meta"] if isinstance(net.get("meta"), dict) else net
    said = meta.get("normalization")
    size = said.get("imageSize") if isinstance(said, dict) else None
    if not isinstance(size, Leaf) or prod(size.shape) < 3:
        return None
    H, W, C = (int(n) for n in size.read().reshape(-1)[:3] if n == n and abs(n) < 1 << 20)
    return (C, H, W) if min(C, H, W) > 0 else None


def _text(layer: Mapping[str, Any], key: str) -> str:
    value = layer.get(key)
    return value if isinstance(value, str) else ""


def _arrays(layer: Mapping[str, Any]) -> Sequence[Leaf]:
    """Filters and biases, the biases as the vector that they are."""
    pair = layer.get("weights", [layer.get("filters"), layer.get("biases")])
    arrays = [leaf for leaf in pair if isinstance(leaf, Leaf)] if isinstance(pair, list) else []
    if not arrays or _text(layer, "type") != "conv":
        return []
    filters, *rest = arrays
    shape = filters.shape + (1,) * (4 - len(filters.shape))  # MATLAB drops last axes of one
    if len(shape) != 4:
        raise WeightsError(f"filters of MatConvNet have the axes H x W x I x O, not {filters.shape}")
    return [_reshaped(filters, shape), *(_reshaped(biases, (prod(biases.shape),)) for biases in rest[:1])]


def _reshaped(leaf: Leaf, shape: tuple[int, ...]) -> Leaf:
    return leaf if leaf.shape == shape else Leaf(shape, leaf.dtype, lambda: leaf.read().reshape(shape))


def _grouped(steps: Sequence[Step], arrays: Mapping[str, Sequence[Leaf]]) -> tuple[Step, ...]:
    """The steps, each convolution with its groups: as many as its filters have too few channels for the maps before."""
    result, maps = [], 0
    for each in steps:
        if each.kind == "conv":
            channels, filters = arrays[each.name][0].shape[2:]
            each = each._replace(settings={**each.settings, "groups": maps // channels if maps and channels else 1})
            maps = filters
        result.append(each)
    return tuple(result)


def _steps(name: str, layer: Mapping[str, Any]) -> Iterator[Step]:
    """What a layer computes. A convolution over all of a map is a dense layer."""
    match _text(layer, "type"):
        case "conv" if arrays := _arrays(layer):
            size, window = arrays[0].shape[:2], _window(layer)
            moves = window["stride"] != (1, 1) or window["padding"] != ((0, 0), (0, 0))
            if moves or (size != (1, 1) and min(size) < 5):
                yield step("conv", name, **window, groups=1)
            else:
                yield step("linear", name)
        case "pool":
            kernel = tuple(int(n) for n in _numbers(layer.get("pool"), 2, 1))
            kind = "avg_pool" if _text(layer, "method") == "avg" else "max_pool"
            yield step(kind, name, kernel=kernel, **_window(layer), ceil=False)
        case "normalize" | "lrn":
            n, k, alpha, beta = _numbers(layer.get("param"), 4)
            constants = {"size": int(n), "alpha": float(f"{alpha:.7g}"), "beta": beta, "k": k}
            yield step("lrn", name, **constants, convention="matconvnet", region="across", groups=1)
        case "dropout":
            yield step("dropout", name, p=_numbers(layer.get("rate"), 1, 0.5)[0], scaling="training")
        case "relu" | "sigmoid" | "softmax" as kind:
            yield step(kind, name)


def _numbers(node: Any, count: int, default: float = 0.0) -> list[Any]:
    """A row of `count` numbers, the same for all where there is but one."""
    if not isinstance(node, Leaf):
        return [default] * count
    if prod(node.shape) not in (1, count):
        raise WeightsError("damaged: a layer of MatConvNet without its numbers")
    values = node.read().reshape(-1).tolist()
    if any(value != value or abs(value) > 1 << 20 for value in values):
        raise WeightsError("damaged: a layer of MatConvNet with numbers out of range")
    return values * count if len(values) == 1 else values


def _window(layer: Mapping[str, Any]) -> dict[str, Any]:
    top, bottom, left, right = (int(n) for n in _numbers(layer.get("pad"), 4))
    stride = tuple(int(n) for n in _numbers(layer.get("stride"), 2, 1))
    return {"stride": stride, "padding": ((top, bottom), (left, right))}
