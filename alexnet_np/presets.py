"""The published networks: one record each, from which everything follows that depends on which network it is.

    PRESETS["paper"]          the record: see `Preset` for its fields
    describe("paper")         the network as data (description.py)
    published("paper"), preset_of_weights("IMAGENET1K_V1")

A further network is a list in networks.py and a record here. What the list already says (layers, ceiling or floor in
pooling, the dialect of the normalisation, the shapes of the weights) is read from it, never written down again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from alexnet_np import arguments, networks
from alexnet_np.data.labels import FASHION_MNIST, imagenet_categories
from alexnet_np.data.recipe import Preprocessing, with_channels
from alexnet_np.description import ACTIVATIONS, Description
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import Layer, LocalResponseNorm, MaxPool2d, WeightedLayer, unfilled

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

    def build(self, channels: int, classes: int, width: float = 1.0, looking: bool = False) -> networks.Layers:
        """The layers, their hidden widths scaled by `width`; `looking`: without memory for their weights.

        Raises ArgumentError where nothing would be left.
        """
        channels = arguments.integer("alexnet", "in_channels", channels, 1)
        classes = arguments.integer("alexnet", "num_classes", classes, 1)
        width = arguments.above("alexnet", "width", width)
        with unfilled(looking):
            return self.network(channels, classes, lambda full: self.scaled(full, width))

    def scaled(self, full: int, width: float) -> int:
        """A hidden width of `full`, scaled: at least one, and a multiple of the towers."""
        return max(1, round(full * width / self.multiple)) * self.multiple

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Those of the network as published, in a row, without numbers in their weights: to be looked at."""
        features, avgpool, classifier = self.build(self.channels, self.classes, looking=True)
        return (*features, avgpool, *classifier)

    @property
    def ceil_pooling(self) -> bool:
        """Whether a pooling window may hang over the edge (Caffe's counting; torch's ceil_mode)."""
        return any(layer.ceil_mode for layer in self.layers if isinstance(layer, MaxPool2d))

    @property
    def activation(self) -> str:
        """relu, tanh or sigmoid: the one that all its hidden layers have."""
        kinds = {kind: name for name, kind in ACTIVATIONS.items()}
        return next(kinds[type(layer)] for layer in self.layers if type(layer) in kinds)

    @property
    def lrn(self) -> LocalResponseNorm | None:
        """The first normalisation: its size, alpha, beta, k, and in which dialect (`convention`) they are meant."""
        return next((layer for layer in self.layers if isinstance(layer, LocalResponseNorm)), None)

    @property
    def weight_shapes(self) -> list[Shape]:
        """The shapes of the weights, not the biases, in the order the layers run."""
        return [layer.weight.shape for layer in self.layers if isinstance(layer, WeightedLayer)]


CAFFES_MEAN = "BVLC/caffe: python/caffe/imagenet/ilsvrc_2012_mean.npy, its mean a channel; create_imagenet.sh: warped"
CAFFES_INPUT = Preprocessing(
    resize=256, crop=227, mode="BGR", scale=1, mean=(104.00699, 116.66877, 122.67891), std=(1, 1, 1), warp=True
)
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
    "krizhevsky145": Preset(
        network=networks.krizhevsky145,
        classes=1000,
        multiple=2,
        preprocessing=Preprocessing(  # minus the centre of the mean image, here its mean a channel
            resize=256, crop=224, mode="RGB", scale=1, mean=(127.23, 118.59, 103.45), std=(1, 1, 1)
        ),
        labels=imagenet_categories,
        weights=(),
        sources=(
            "computerhistory/AlexNet-Source-Code: layers/layers-145.cfg, layer-params-145.cfg",
            "akrizhevsky/cuda-convnet2: make-data/input_meta, for the mean image",
        ),
    ),
    "bvlc": Preset(
        network=networks.bvlc,
        classes=1000,
        multiple=2,
        preprocessing=CAFFES_INPUT,
        labels=imagenet_categories,
        weights=(),
        sources=("BVLC/caffe: models/bvlc_alexnet/deploy.prototxt", CAFFES_MEAN),
    ),
    "caffenet": Preset(
        network=networks.caffenet,
        classes=1000,
        multiple=2,
        preprocessing=CAFFES_INPUT,
        labels=imagenet_categories,
        weights=(),
        sources=("BVLC/caffe: models/bvlc_reference_caffenet/deploy.prototxt", CAFFES_MEAN),
    ),
    "onnx": Preset(
        network=networks.onnx,
        classes=1000,
        multiple=2,
        preprocessing=CAFFES_INPUT._replace(crop=224),
        labels=imagenet_categories,
        weights=(),
        sources=("onnx/onnx: onnx/backend/test/data/light/light_bvlc_alexnet.onnx", CAFFES_MEAN),
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
    "lenet5": Preset(  # Caffe's "LeNet" (examples/mnist/lenet_train_test.prototxt) is another network
        network=networks.lenet5,
        classes=10,
        multiple=1,
        preprocessing=Preprocessing(resize=28, crop=28, mode="L", scale=255, mean=(0,), std=(1,)),
        labels=lambda: FASHION_MNIST,
        weights=(),
        sources=(
            'LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition" (1998), II.B',
            "d2l-ai/d2l-en: chapter_convolutional-neural-networks/lenet.md",
        ),
    ),
}


def check_preset(name: str) -> str:
    """`name` if it is a preset's. Raises ArgumentError naming the choices otherwise."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ArgumentError(f"unknown preset {arguments.shown(name)}: choose one of {', '.join(PRESETS)}")
    return name


def describe(
    preset: str, num_classes: int | None = None, in_channels: int | None = None, width: float = 1.0
) -> Description:
    """The record of a preset, at the preset's sizes where none are given."""
    known = PRESETS[check_preset(preset)]
    channels = known.channels if in_channels is None else arguments.integer("alexnet", "in_channels", in_channels, 1)
    classes = known.classes if num_classes is None else arguments.integer("alexnet", "num_classes", num_classes, 1)
    width = arguments.above("alexnet", "width", width)
    recipe = with_channels(known.preprocessing, channels)
    return Description(preset, classes, channels, width, known.activation, preprocessing=recipe)


def published(preset: str) -> str | None:
    """The name of the weights published for `preset` at its full width."""
    from alexnet_np.weights import registry

    return next((name for name in PRESETS[preset].weights if registry.entry(name).width == 1), None)


def preset_of_weights(name: str) -> str:
    """The preset that the published weights `name` are of. Raises WeightsError naming the choices."""
    from alexnet_np.weights import registry

    entry = registry.entry(name)
    return next(p for p, known in PRESETS.items() if any(registry.entry(own) is entry for own in known.weights))
