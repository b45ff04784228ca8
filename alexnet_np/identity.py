"""Which network: built by its preset's name, or whatever the weights of a file, a run or a mapping are of.

alexnet("paper", ...)            the network, from its record in presets.py
alexnet(None, weights="x.npz")   the one that the file says, or that the evidence in it shows
preprocess(image, model=model)   its input
identify(weights)                the same without building it: a Description
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from alexnet_np import arguments, identification
from alexnet_np.data.labels import imagenet_categories
from alexnet_np.data.recipe import Preprocessing, adjusted
from alexnet_np.description import Description
from alexnet_np.errors import ArgumentError, WeightsError
from alexnet_np.initialisation import initialise
from alexnet_np.models import AlexNet, check_model
from alexnet_np.outline import comparable
from alexnet_np.presets import PRESETS, check_preset, describe
from alexnet_np.text import counted
from alexnet_np.weights.fitting import Wanted

Shape = tuple[int, ...]


def alexnet(
    preset: str | None = "torchvision",
    weights: Any = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    width: float | None = 1.0,
    towers: int = 1,
    dtype: Any = "float32",
    seed: int | None = None,
    backend: str | None = None,
) -> AlexNet:
    """Build a network. It starts in training mode, as torch's modules do: call `.eval()` to switch dropout off.

    `preset`: a name in PRESETS: "torchvision", "paper", "krizhevsky145", "bvlc", "caffenet", "onnx", "d2l" or "lenet5".
    None: whatever the weights are of, as their file says (every one that was written here does) or as its evidence
    shows; then the sizes and all that was changed in the network come with them.
    `weights`: None (seeded random), a published name ("IMAGENET1K_V1", or torchvision's member of it), a file, the
    folder of a run of `alexnet train`, or a mapping name -> array. Prefixes, containers and what else is in them do not
    matter (weights/finding.py).
    `width` scales every hidden width (channels, dense units); None: all sizes are what the weights have.
    `num_classes`, `in_channels`: those of the weights, by default, where there are any, else the preset's.
    `towers`: 2 runs a grouped network as two halves that exchange only what they must (alexnet_np/towers.py).
    `seed` fixes initialisation and dropout; without one they differ from run to run.
    `backend`: "numpy", "numba", "cupy" or "cuda" (alexnet_np/backend.py); by default use_backend's, or the array's.
    Raises ArgumentError, WeightsError (also where a file says that its network is another one), BackendError.
    """
    if preset is not None:
        check_preset(preset)
    if weights is None:
        said = describe(preset or "torchvision", num_classes, in_channels, 1.0 if width is None else width)
    else:
        sizes = {"num_classes": num_classes, "in_channels": in_channels}
        said = _described(weights, preset, None if preset is None and width == 1 else width, sizes)
    model = build(said, dtype, seed)
    model.towers = towers
    if weights is None:
        initialise(model.named_parameters(), model.seed)
    else:
        found = _found_for(model, weights)
        model.load_state_dict(found, assign=not isinstance(weights, Mapping))  # what was read from a file is nobody's
    return model if backend is None else model.to(backend)


def _described(weights: Any, preset: str | None, width: float | None, sizes: dict[str, Any]) -> Description:
    """The network that weights are to be loaded into: theirs, if it agrees with what is asked for."""
    said = identify(weights, preset) if preset is None or width is None else said_of(weights)
    if said is None and preset is not None:  # nobody says: the preset's, into which they will fit or not
        wide = 1.0 if width is None else width
        open_sizes = {name for name, size in sizes.items() if size is None}
        found = _shown_by_shapes(weights, describe(preset, width=wide))
        sizes = sizes | {name: getattr(found, name) for name in open_sizes if found is not None}
        return describe(preset, sizes["num_classes"], sizes["in_channels"], wide)
    assert said is not None
    asked = {"preset": preset, "width": width, **sizes}
    said.check_same(asked, identification.name_of(weights), "leave that open (preset=None): the weights bring it along")
    return said


def _found_for(model: AlexNet, weights: Any) -> Mapping[str, Any]:
    """The weights that fit `model`. Raises WeightsError: of what width they are where that is all, or what is wrong."""
    try:
        return find_weights(weights, wanted_by(model))
    except WeightsError as error:
        theirs, width = _sizes_of(weights, model.preset), model.described().width
        if theirs is None or math.isclose(theirs.width, width, rel_tol=1e-3):
            raise
        raise WeightsError(
            f"{identification.name_of(weights)}: weights of {theirs}, not of width {width:g}: leave the width open "
            "(width=None)"
        ) from error


def _sizes_of(weights: Any, preset: str) -> Description | None:
    """The network of `preset` whose shapes weights have; None where they have not."""
    with suppress(WeightsError), identification.contents_of(weights) as contents:
        sizes = identification.judge(contents).possible.get(preset)
        return None if sizes is None else describe(preset, *sizes)
    return None


def _shown_by_shapes(weights: Any, wanted: Description) -> Description | None:
    """The network that the shapes are of, if it is `wanted` but for its classes and channels, which they show.

    Raises WeightsError where they are of another preset.
    """
    found = identify(weights, wanted.preset)
    alike = found.preset == wanted.preset and math.isclose(found.width, wanted.width, rel_tol=1e-3)
    return found if alike else None


def build(said: Description, dtype: Any = "float32", seed: int | None = None) -> AlexNet:
    """The network of a description, without numbers in its weights. Raises ArgumentError, DtypeError."""
    known = PRESETS[check_preset(said.preset)]
    features, avgpool, classifier = known.build(said.in_channels, said.num_classes, said.width)
    features, classifier = ([said.changed(layer) for layer in part] for part in (features, classifier))
    number = secrets.randbits(32) if seed is None else arguments.seed("alexnet", seed)
    model = AlexNet(said.preset, features, avgpool, classifier, number)
    model.said = said
    model.input_size = None if said.preprocessing is None else said.preprocessing.crop
    return model.astype(dtype)


def find_weights(weights: Any, wanted: Wanted) -> Mapping[str, Any]:
    """name -> array, from a mapping, a published name or a file: those in it that fit. Raises WeightsError."""
    from alexnet_np.weights import registry  # only now: reading files needs more than building a network

    return registry.load(weights, wanted)


def wanted_by(model: AlexNet, head: bool = True) -> Wanted:
    """What weights have to be like to be `model`'s; without the head those of the last layer may be anything."""
    shapes: dict[str, Shape | None] = {name: parameter.shape for name, parameter in model.named_parameters()}
    if not head:
        shapes |= dict.fromkeys(list(shapes)[-2:])
    recipe = model.described().preprocessing
    steps = comparable(model.leaves())
    return Wanted(shapes, None if recipe is None else recipe.mode, steps, model.input_size, model.preset)


def preprocess(
    image: Any,
    *,
    preset: str = "torchvision",
    model: AlexNet | None = None,
    resize_size: int | None = None,
    crop_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: Any = "float32",
    like_torchvision: bool = False,
) -> np.ndarray:
    """One image as a network's input: (3,224,224) for torchvision's, (3,227,227) BGR for Caffe's, (1,224,224) d2l's.

    `image`: a path, "-" for standard input, bytes, a binary file, a PIL image of any mode, or an array of bytes (H,W),
    (H,W,3) or (3,H,W), torch's too. A list of images, or an array (N,...) of them, gives a batch (N,3,224,224).
    The shorter side is resized to `resize_size` (bilinear, antialiased), the central square of `crop_size` cut out
    (black where the image is smaller), and that normalised by `mean` and `std`, in units of the scaled pixels (0..1;
    0..255 for "paper"). What is None is the preset's, or that of `model`, a network that knows how its pictures were
    prepared: one that was trained here, loaded from a file of ours, or built from a preset.
    `dtype`: float32 or float64.
    The traps: the EXIF orientation is not applied, because torchvision does not apply it (call
    `PIL.ImageOps.exif_transpose` first for an upright picture); 16-bit grey is scaled to 8 bits, with a warning,
    and with `like_torchvision` clipped at 255 as Pillow converts it.
    Raises ImageError, also for sides of more than about 1:1365, which the resize would grow beyond Pillow's guard;
    ArgumentError for a preset or a number out of range; DtypeError.
    Source: torchvision, `transforms/_presets.py`, class ImageClassification.
    """
    from alexnet_np.data.pictures import as_picture, several  # only now: a network needs no Pillow
    from alexnet_np.data.preprocess import prepare

    known = PRESETS[check_preset(preset)].preprocessing
    recipe = known if model is None else recipe_of(check_model("preprocess", model))
    recipe = adjusted(recipe, resize_size, crop_size, mean, std)
    if arguments.flag("preprocess", "like_torchvision", like_torchvision):
        recipe = recipe._replace(like_torchvision=True)
    images = several(image)
    if images is None:
        return prepare(as_picture(image), recipe, dtype)
    return np.stack([prepare(as_picture(each), recipe, dtype) for each in images])


def identify(weights: Any, preset: str | None = None) -> Description:
    """The network of a published name, a file, a run's folder or a mapping: as the file says, or as the evidence shows.

    `preset`: which one it should be; it is taken at its own sizes where the shapes show nothing, as those of towers in
    files of their own. Raises WeightsError where none fits, where it is another one, and, where none is asked for,
    where several fit and nothing tells which (identification.py).
    """
    with identification.contents_of(weights) as contents:
        return identification.identified(contents, preset or identification.published_as(weights))


def said_of(weights: Any) -> Description | None:
    """The network that a file says its weights are of; None where nobody says. Raises WeightsError."""
    if isinstance(weights, Mapping):
        return None
    with identification.contents_of(weights) as contents:
        return identification.said_in(contents)


def labels_of(model: AlexNet) -> list[str]:
    """The names of a network's classes, or their numbers where nobody has named them."""
    said = model.described()
    if said.classes is not None:
        return list(said.classes)
    for names in (PRESETS[model.preset].labels(), imagenet_categories()):
        if len(names) == model.num_classes:
            return list(names)
    return [f"class {i}" for i in range(model.num_classes)]


def recipe_of(model: AlexNet) -> Preprocessing:
    """What is done to a network's pictures. Raises ArgumentError where nobody knows."""
    recipe = model.described().preprocessing
    if recipe is None:
        raise ArgumentError(
            f"no preprocessing is known for this network of {counted(model.in_channels, 'channel')}: prepare x, (N,"
            f"{model.in_channels},H,W), yourself"
        )
    return recipe
