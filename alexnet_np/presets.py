"""The published networks: one record each, from which everything follows that depends on which network it is.

    PRESETS["paper"]          the record: see `Preset` for its fields
    alexnet("paper", ...)     the network, built from the record's literal list (networks.py)
    preprocess(image, preset="paper")    the network's input, by the record's recipe (data/recipe.py)
    find_preset(shapes)       whose weights these are, by the shapes that follow from the list
    labels_of(model), published("paper"), preset_of_weights("IMAGENET1K_V1")

A further network is a list in networks.py and a record here. What the list already says (layers, ceiling or floor in
pooling, the dialect of the normalisation, the shapes of the weights) is read from it, never written down again.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from alexnet_np import networks
from alexnet_np.data.labels import FASHION_MNIST, imagenet_categories
from alexnet_np.data.recipe import Preprocessing, adjusted
from alexnet_np.errors import ArgumentError
from alexnet_np.initialisation import initialise
from alexnet_np.layers import Layer, Linear, LocalResponseNorm, MaxPool2d, WeightedLayer
from alexnet_np.models import AlexNet
from alexnet_np.weights.fitting import Wanted

if TYPE_CHECKING:
    import numpy as np

    from alexnet_np.data.preprocess import ImageSource

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Preset:
    """All that is known of one published network."""

    network: Callable[[int, int, networks.Width], networks.Layers]  # (channels, classes, width) -> the literal list
    classes: int
    multiple: int  # what every hidden width must be a multiple of: the towers, where it has them
    preprocessing: Preprocessing  # what it was trained on: input size, channel order, value range, mean, std, resize
    labels: Callable[[], Sequence[str]]  # the names of its classes, in the order of its outputs
    weights: tuple[str, ...]  # the published ones (weights/registry.py), of whatever width
    sources: tuple[str, ...]  # where all this was read: publication and section, repository and file

    @property
    def channels(self) -> int:
        return self.preprocessing.channels

    def build(self, channels: int, classes: int, width: float = 1.0) -> networks.Layers:
        """The layers, their hidden widths scaled by `width`. Raises ArgumentError where nothing would be left."""
        if channels < 1 or classes < 1 or not width > 0:
            raise ArgumentError(
                f"in_channels ({channels}), num_classes ({classes}) and width ({width}) must be positive"
            )
        return self.network(channels, classes, lambda full: max(1, round(full * width / self.multiple)) * self.multiple)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Those of the network as published, in a row, without numbers in their weights: to be looked at."""
        features, avgpool, classifier = self.build(self.channels, self.classes)
        return (*features, avgpool, *classifier)

    @property
    def ceil_pooling(self) -> bool:
        """Whether a pooling window may hang over the edge (Caffe's counting; torch's ceil_mode)."""
        return any(layer.ceil_mode for layer in self.layers if isinstance(layer, MaxPool2d))

    @property
    def lrn(self) -> LocalResponseNorm | None:
        """The first normalisation: its size, alpha, beta, k, and in which dialect (`convention`) they are meant."""
        return next((layer for layer in self.layers if isinstance(layer, LocalResponseNorm)), None)

    @property
    def weight_shapes(self) -> list[Shape]:
        """The shapes of the weights, not the biases, in the order the layers run."""
        return [layer.weight.shape for layer in self.layers if isinstance(layer, WeightedLayer)]


IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1

PRESETS = {
    "torchvision": Preset(
        network=networks.torchvision,
        classes=1000,
        multiple=1,
        preprocessing=Preprocessing(
            resize=256, crop=224, mode="RGB", scale=255, mean=IMAGENET_MEAN, std=(0.229, 0.224, 0.225)
        ),
        labels=imagenet_categories,
        weights=("IMAGENET1K_V1",),
        sources=(
            'Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), one tower',
            "torchvision: models/alexnet.py, transforms/_presets.py",
        ),
    ),
    "paper": Preset(
        network=networks.paper,
        classes=1000,
        multiple=2,
        preprocessing=Preprocessing(  # raw pixels minus the mean of the training set, here one number a channel
            resize=256, crop=224, mode="RGB", scale=1, mean=tuple(255 * m for m in IMAGENET_MEAN), std=(1, 1, 1)
        ),
        labels=imagenet_categories,
        weights=(),
        sources=("Krizhevsky, Sutskever, Hinton (2012): sec. 3.3-3.5 and figure 2; sec. 2 and 4.1 for the input",),
    ),
    "d2l": Preset(
        network=networks.d2l,
        classes=10,
        multiple=1,
        preprocessing=Preprocessing(resize=224, crop=224, mode="L", scale=255, mean=(0,), std=(1,)),
        labels=lambda: FASHION_MNIST,
        weights=("FASHION_MNIST_V1",),
        sources=('Zhang, Lipton, Li, Smola, "Dive into Deep Learning": sec. 8.1, TensorFlow edition',),
    ),
}


def check_preset(name: str) -> str:
    """`name` if it is a preset's. Raises ArgumentError naming the choices otherwise."""
    if name not in PRESETS:
        raise ArgumentError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return name


def alexnet(
    preset: str = "torchvision",
    weights: Any = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    width: float = 1.0,
    dtype: Any = "float32",
    seed: int | None = None,
    backend: str | None = None,
) -> AlexNet:
    """Build a network. It starts in training mode, as torch's modules do: call `.eval()` to switch dropout off.

    `preset`: "torchvision", "paper" or "d2l".
    `weights`: None (seeded random), a published name ("IMAGENET1K_V1", or torchvision's member of it), a file, or a
    mapping name -> array. Prefixes, containers and what else is in them do not matter (weights/finding.py).
    `num_classes`, `in_channels`: the preset's by default. `width` scales every hidden width (channels, dense units).
    `seed` fixes initialisation and dropout; without one they differ from run to run.
    `backend`: "numpy", "numba", "cupy" or "cuda" (alexnet_np/backend.py); by default use_backend's, or the array's.
    Raises ArgumentError, WeightsError, BackendError.
    """
    known = PRESETS[check_preset(preset)]
    channels = known.channels if in_channels is None else in_channels
    classes = known.classes if num_classes is None else num_classes
    layers = known.build(channels, classes, width)
    model = AlexNet(preset, *layers, secrets.randbits(32) if seed is None else seed)
    model.input_size = known.preprocessing.crop
    model.astype(dtype)
    if weights is None:
        initialise(model.named_parameters(), model.seed)
    else:
        model.load_state_dict(find_weights(weights, wanted_by(model)))
    return model if backend is None else model.to(backend)


def find_weights(weights: Any, wanted: Wanted) -> Mapping[str, Any]:
    """name -> array, from a mapping, a published name or a file: those in it that fit. Raises WeightsError."""
    from alexnet_np.weights import registry  # only now: reading files needs more than building a network

    return registry.load(weights, wanted)


def wanted_by(model: AlexNet, head: bool = True) -> Wanted:
    """What weights have to be like to be `model`'s; without the head those of the last layer may be anything."""
    shapes: dict[str, Shape | None] = {name: parameter.shape for name, parameter in model.named_parameters()}
    if not head:
        shapes |= dict.fromkeys(list(shapes)[-2:])
    return Wanted(shapes, PRESETS[model.preset].preprocessing.mode)


def preprocess(
    image: ImageSource,
    *,
    preset: str = "torchvision",
    resize_size: int | None = None,
    crop_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: Any = "float32",
) -> np.ndarray:
    """One image as a network's input: (3,224,224) for "torchvision" and "paper", (1,224,224) for "d2l".

    `image`: a path, "-" for standard input, bytes, a binary file, or a PIL image of any mode. Its shorter side is
    resized to `resize_size` (bilinear, antialiased), the central square of `crop_size` cut out (black where the image
    is smaller), and that normalised by `mean` and `std`, in units of the scaled pixels (0..1; 0..255 for "paper"). What
    is None is the preset's. `dtype`: float32 or float64.
    The traps: the EXIF orientation is not applied, because torchvision does not apply it (call
    `PIL.ImageOps.exif_transpose` first for an upright picture); 16-bit grey is clipped at 255, as Pillow converts it.
    Raises ImageError, also for sides of more than about 1:1365, which the resize would grow beyond Pillow's guard;
    ArgumentError for a preset or a number out of range; DtypeError.
    Source: torchvision, `transforms/_presets.py`, class ImageClassification.
    """
    from alexnet_np.data.preprocess import prepare  # only now: a network needs no Pillow

    recipe = PRESETS[check_preset(preset)].preprocessing
    return prepare(image, adjusted(recipe, resize_size, crop_size, mean, std), dtype)


def find_preset(shapes: Mapping[str, Shape]) -> str | None:
    """The preset whose layers have these shapes, whatever they are called and in whatever order.

    At full width, and for any number of classes: the last layer counts by its inputs alone. Of presets that differ only
    in what has no weights it is the first.
    """
    have = Counter[Shape](shape for shape in shapes.values() if len(shape) > 1)
    for name, preset in PRESETS.items():
        *body, last = preset.weight_shapes
        head = list((have - Counter(body)).elements())
        if have.total() == len(body) + 1 and len(head) == 1 and head[0][1:] == last[1:]:
            return name
    return None


def sizes(preset: str, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """num_classes, in_channels and width of a network of `preset` whose parameters have these shapes.

    Empty where the first or the last weight is missing: fitting the rest to a network will say what is wrong.
    """
    features, _, classifier = PRESETS[preset].build(1, 1)
    last = classifier[-1]
    assert isinstance(last, Linear)  # every preset ends in one
    begins, ends = shapes.get("features.0.weight", ()), shapes.get(f"classifier.{len(classifier) - 1}.weight", ())
    if len(begins) != 4 or len(ends) != 2:
        return {}
    return {"num_classes": ends[0], "in_channels": begins[1], "width": ends[1] / last.in_features}


def published(preset: str) -> str | None:
    """The name of the weights published for `preset` at its full width."""
    from alexnet_np.weights import registry

    return next((name for name in PRESETS[preset].weights if registry.entry(name).width == 1), None)


def preset_of_weights(name: str) -> str:
    """The preset that the published weights `name` are of. Raises WeightsError naming the choices."""
    from alexnet_np.weights import registry

    entry = registry.entry(name)
    return next(p for p, known in PRESETS.items() if any(registry.entry(own) is entry for own in known.weights))


def labels_of(model: AlexNet) -> list[str]:
    """The names of a network's classes, or their numbers where nobody has named them."""
    for names in (PRESETS[model.preset].labels(), imagenet_categories()):
        if len(names) == model.num_classes:
            return list(names)
    return [f"class {i}" for i in range(model.num_classes)]
