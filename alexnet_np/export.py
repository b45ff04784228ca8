"""Weights from one file into another: renamed for the network that they are of, or as that network for another program.

convert("bvlc_alexnet.caffemodel", "bvlc.onnx")
convert("imagenet-caffe-alex.mat", "bvlc.pth", changes=Changes(channels="RGB"))
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from alexnet_np import arguments, identification
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.description import Description
from alexnet_np.errors import WeightsError
from alexnet_np.identity import build, wanted_by
from alexnet_np.models import AlexNet
from alexnet_np.outline import steps_of
from alexnet_np.presets import check_preset
from alexnet_np.weights import finding, registry, seal, transforms
from alexnet_np.weights.fitting import fit, kept
from alexnet_np.weights.leaves import Contents
from alexnet_np.weights.steps import Network
from alexnet_np.weights.writing import NETWORKS, SEALED, write


@dataclass(frozen=True)
class Changes:
    """What the written network does otherwise, with the same logits (weights/transforms.py)."""

    channels: str | None = None  # "RGB" or "BGR": what it takes
    mean_inside: bool = False  # it takes pixels from which no mean was subtracted
    dense: bool = False  # grouped convolutions are written as dense ones
    trained_dropout: str | None = None  # "training" or "testing": when it scaled in training; None: as the file says
    dropout: str = "training"  # "testing": for a program whose dropout scales then

    def __post_init__(self) -> None:
        for name, known in {"channels": ("RGB", "BGR"), "trained_dropout": SCALED, "dropout": SCALED}.items():
            if getattr(self, name) is not None or name == "dropout":
                arguments.choice("convert", name, getattr(self, name), known)
        for name in ("mean_inside", "dense"):
            arguments.flag("convert", name, getattr(self, name))


SCALED = ("training", "testing")


class Converted(NamedTuple):
    said: Description | None  # the network that it is; None where nobody knows, and the names are the file's
    arrays: Mapping[str, Any]
    changed: list[str]  # what was done to the numbers, in words
    left: list[str]  # what in the file was not written


def convert(
    source: str | os.PathLike[str] | Mapping[str, Any],
    target: str | os.PathLike[str],
    *,
    preset: str | None = None,
    part: str | None = None,
    changes: Changes | None = None,
    opset: int = 17,
) -> Converted:
    """Write the weights in `source`, a file, a published name or a mapping, to `target`, in the format of its ending.

    Where it is known of which network they are, they get its names, torchvision's, and what it is goes with them;
    otherwise names and numbers stay as they are. `preset` says it where several have the shapes, `part` which weights
    are meant where a file holds several. Raises WeightsError, MissingPackageError.
    """
    changes = changes or Changes()
    target = arguments.path("convert", "target", target)
    if preset is not None:
        check_preset(preset)
    with identification.contents_of(source) as contents:
        contents = finding.only(contents, part)
        said = _said(source, contents, preset, is_needed=target.suffix in NETWORKS or changes != Changes())
        if said is None:
            found = finding.mapping(contents)
            arrays = registry.numbers_of(contents, found.leaves)
            write(target, arrays)
            return Converted(None, arrays, [], found.left)
        model = build(said)
        chosen = fit(contents, wanted_by(model))
        arrays = registry.numbers_of(contents, chosen.leaves)
        is_carried = bool(kept(contents.steps))
    plain = Network(f"AlexNet, {said.preset}", steps_of(model.leaves()), arrays, _input_of(model), {})
    network, became, changed = _changed(plain, said, changes, is_carried)
    if became is not None and became.arrays():
        if target.suffix in SEALED:
            network = network._replace(arrays={**network.arrays, **became.arrays()})
        else:
            became = became.without_arrays()
            changed.append(f"its mean image stays behind: {target.suffix} has room for weights alone")
    metadata = {} if became is None else seal.pack({"network": became.to_json()})
    write(target, network._replace(metadata=metadata), opset=opset)
    return Converted(became, network.arrays, chosen.changed + changed, chosen.left)


def _input_of(model: AlexNet) -> tuple[int, int, int]:
    """(C, H, W): the preset's, or where nobody has said it the smallest. Raises WeightsError."""
    side = model.input_size or model.smallest_input()
    if side is None:
        raise WeightsError("its layers do not fit together, whatever the size of the input")
    return model.in_channels, side, side


def _said(source: Any, contents: Contents, preset: str | None, is_needed: bool) -> Description | None:
    """The network that the weights are of; None where nobody knows, and nobody needs to. Raises WeightsError."""
    preset = preset or identification.published_as(source)
    try:
        return identification.identified(contents, preset)
    except WeightsError:
        if is_needed or preset is not None:
            raise
        return None


def _changed(
    network: Network, said: Description, changes: Changes, is_carried: bool
) -> tuple[Network, Description | None, list[str]]:
    """The changed network, what it is now if a preset can still say so, and what was done, in words."""
    recipe, done, still = said.preprocessing, list[str](), True
    if changes.channels is not None:
        network, recipe = _turned(network, recipe, changes.channels)
        if said.preprocessing != recipe:
            done.append(f"takes {changes.channels} instead of {said.preprocessing and said.preprocessing.mode}")
    if changes.mean_inside:
        if recipe is None:
            raise WeightsError("nobody knows the mean of this network's input")
        if recipe.mean_image is not None:
            raise WeightsError("a mean image differs from place to place: no bias takes it in")
        network = transforms.with_mean_inside(network, recipe.mean, recipe.std)
        done.append(f"mean {_numbers(recipe.mean)} and std {_numbers(recipe.std)} are in the first convolution")
        recipe = recipe._replace(mean=(0.0,) * len(recipe.mean), std=(1.0,) * len(recipe.std))
    if changes.dense:
        network, still = transforms.without_groups(network), False
        done.append("convolutions without groups")
    if changes.trained_dropout == "testing" and not is_carried:
        network = transforms.from_testing_scale(network)
        done.append("weights behind dropout times what it keeps, as it scaled in testing")
    if changes.dropout == "testing":
        network, still = transforms.for_testing_scale(network), False
        done.append("weights behind dropout divided by what it keeps, for a program that scales in testing")
    return network, replace(said, preprocessing=recipe) if still else None, done


def _turned(network: Network, recipe: Preprocessing | None, channels: str) -> tuple[Network, Preprocessing]:
    """The network for the other order of channels, and how its pictures are prepared then. Raises WeightsError."""
    if recipe is None or recipe.mode not in ("RGB", "BGR"):
        raise WeightsError(f"a network of {recipe.mode if recipe else 'unknown'} input cannot take {channels}")
    if recipe.mode == channels:
        return network, recipe
    turned = recipe._replace(mode=channels, mean=recipe.mean[::-1], std=recipe.std[::-1])
    return transforms.turned_channels(network), turned


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
