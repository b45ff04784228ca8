"""The networks, as literal layer lists to be read beside torchvision's models/alexnet.py.

Each function takes the channels of the input, the classes, and `w`, which gives a hidden width of the net at its full
size the width that is wanted. It returns the layers of `features`, then `avgpool`, then the layers of `classifier`.
What else is known of each network stands in presets.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alexnet_np.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dropout,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Sigmoid,
)

Width = Callable[[int], int]
Layers = tuple[list[Layer], Layer, list[Layer]]


def torchvision(C: int, classes: int, w: Width) -> Layers:
    """torchvision.models.alexnet: the one-tower net of Krizhevsky, "One weird trick" (2014). 61,100,840 parameters."""
    features = [
        Conv2d(C, w(64), kernel_size=11, stride=4, padding=2),  # 224 -> 55
        ReLU(),
        MaxPool2d(kernel_size=3, stride=2),  # 55 -> 27
        Conv2d(w(64), w(192), kernel_size=5, padding=2),
        ReLU(),
        MaxPool2d(kernel_size=3, stride=2),  # 27 -> 13
        Conv2d(w(192), w(384), kernel_size=3, padding=1),
        ReLU(),
        Conv2d(w(384), w(256), kernel_size=3, padding=1),
        ReLU(),
        Conv2d(w(256), w(256), kernel_size=3, padding=1),
        ReLU(),
        MaxPool2d(kernel_size=3, stride=2),  # 13 -> 6
    ]
    classifier = [
        Dropout(p=0.5),
        Linear(w(256) * 6 * 6, w(4096)),
        ReLU(),
        Dropout(p=0.5),
        Linear(w(4096), w(4096)),
        ReLU(),
        Linear(w(4096), classes),
    ]
    return features, AdaptiveAvgPool2d((6, 6)), classifier


def paper(C: int, classes: int, w: Width) -> Layers:
    """Krizhevsky, Sutskever, Hinton (2012), sec. 3.5 and figure 2, the two towers as groups. 60,965,224 parameters.

    The first convolution gives 55x55 from 224x224 because the authors' code counts 1 + ceil((H - 11) / 4) outputs:
    its last window hangs 3 pixels over the right and bottom edge, onto zeros. The normalisation stops at the tower, as
    in figure 2 and the authors' code ("channels=48", "channels=128"), though the text says "the layer's N maps".
    """
    features = [
        Conv2d(C, w(96), kernel_size=11, stride=4, padding=((0, 3), (0, 3))),  # 224 -> 55
        ReLU(),
        LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, convention="paper", groups=2),
        MaxPool2d(kernel_size=3, stride=2),  # 55 -> 27
        Conv2d(w(96), w(256), kernel_size=5, padding=2, groups=2),
        ReLU(),
        LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, convention="paper", groups=2),
        MaxPool2d(kernel_size=3, stride=2),  # 27 -> 13
        Conv2d(w(256), w(384), kernel_size=3, padding=1),  # the towers meet here
        ReLU(),
        Conv2d(w(384), w(384), kernel_size=3, padding=1, groups=2),
        ReLU(),
        Conv2d(w(384), w(256), kernel_size=3, padding=1, groups=2),
        ReLU(),
        MaxPool2d(kernel_size=3, stride=2),  # 13 -> 6
    ]
    return features, AdaptiveAvgPool2d((6, 6)), dropout_after(classes, w)


def d2l(C: int, classes: int, w: Width) -> Layers:
    """Zhang et al., "Dive into Deep Learning", sec. 8.1, TensorFlow edition. 46,764,746 parameters.

    That edition does not pad the first convolution; torch's pads by 1 and reaches the same 54x54.
    """
    features = [
        Conv2d(C, w(96), kernel_size=11, stride=4),  # 224 -> 54
        ReLU(),
        MaxPool2d(kernel_size=3, stride=2),  # 54 -> 26
        Conv2d(w(96), w(256), kernel_size=5, padding=2),
        ReLU(),
        MaxPool2d(kernel_size=3, stride=2),  # 26 -> 12
        Conv2d(w(256), w(384), kernel_size=3, padding=1),
        ReLU(),
        Conv2d(w(384), w(384), kernel_size=3, padding=1),
        ReLU(),
        Conv2d(w(384), w(256), kernel_size=3, padding=1),
        ReLU(),
        MaxPool2d(kernel_size=3, stride=2),  # 12 -> 5
    ]
    classifier = [
        Linear(w(256) * 5 * 5, w(4096)),
        ReLU(),
        Dropout(p=0.5),
        Linear(w(4096), w(4096)),
        ReLU(),
        Dropout(p=0.5),
        Linear(w(4096), classes),
    ]
    return features, AdaptiveAvgPool2d((5, 5)), classifier


def lenet5(C: int, classes: int, w: Width) -> Layers:
    """Zhang et al., "Dive into Deep Learning", sec. 7.6: LeCun et al. (1998), simplified. 61,706 parameters.

    The paper's own has 32x32 inputs (here 28x28 and padding 2), a factor and a bias trained for every mean, 60 of the
    96 connections between the maps of S2 and C3, A tanh(Sx) where there is a sigmoid here, and radial basis outputs.
    """
    features = [
        Conv2d(C, w(6), kernel_size=5, padding=2),  # 28 -> 28; C1
        Sigmoid(),
        AvgPool2d(kernel_size=2, stride=2),  # 28 -> 14; S2
        Conv2d(w(6), w(16), kernel_size=5),  # 14 -> 10; C3
        Sigmoid(),
        AvgPool2d(kernel_size=2, stride=2),  # 10 -> 5; S4
    ]
    classifier = [
        Linear(w(16) * 5 * 5, w(120)),  # C5
        Sigmoid(),
        Linear(w(120), w(84)),  # F6
        Sigmoid(),
        Linear(w(84), classes),
    ]
    return features, AdaptiveAvgPool2d((5, 5)), classifier


def krizhevsky145(C: int, classes: int, w: Width) -> Layers:
    """The authors' own configuration of 2012, released in 2025: layers-145.cfg. 60,965,224 parameters.

    In the first layer normalisation and pooling come before the ReLU; in the second a further normalisation follows,
    within each map. The code divides alpha by the window (2e-5 a square), and every tower normalises by itself.
    """
    features = [
        Conv2d(C, w(96), kernel_size=11, stride=4, padding=((0, 3), (0, 3))),  # 224 -> 55
        LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, convention="krizhevsky", groups=2),
        MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),  # 55 -> 27
        ReLU(),
        Conv2d(w(96), w(256), kernel_size=5, padding=2, groups=2),
        ReLU(),
        LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, convention="krizhevsky", groups=2),
        LocalResponseNorm(5, alpha=1e-3, beta=0.75, k=1.0, convention="krizhevsky", region="within"),
        MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),  # 27 -> 13
        Conv2d(w(256), w(384), kernel_size=3, padding=1),  # the towers meet here
        ReLU(),
        Conv2d(w(384), w(384), kernel_size=3, padding=1, groups=2),
        ReLU(),
        Conv2d(w(384), w(256), kernel_size=3, padding=1, groups=2),
        MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),  # 13 -> 6
        ReLU(),
    ]
    return features, AdaptiveAvgPool2d((6, 6)), dropout_after(classes, w)


def bvlc(C: int, classes: int, w: Width) -> Layers:
    """Caffe's bvlc_alexnet, for 227x227: convolution, ReLU, normalisation, pooling. 60,965,224 parameters."""
    return caffes([ReLU, caffes_norm, caffes_pool], C, classes, w)


def caffenet(C: int, classes: int, w: Width) -> Layers:
    """Caffe's bvlc_reference_caffenet: `bvlc`, but pooled before it is normalised."""
    return caffes([ReLU, caffes_pool, caffes_norm], C, classes, w)


def onnx(C: int, classes: int, w: Width) -> Layers:
    """The ONNX model zoo's bvlcalexnet: `bvlc` for 224x224, with pooling that counts downwards.

    Caffe2's exporter wrote the last pooling's ceiling as padding by [0, 0, 1, 1], which is the same: 224 -> 54 -> 26 ->
    12 -> 6, where Caffe itself would give 54 -> 27 -> 13 -> 6.
    """
    return caffes([ReLU, caffes_norm, floor_pool], C, classes, w)


def caffes(after: Sequence[Callable[[], Layer]], C: int, classes: int, w: Width) -> Layers:
    """The layers that Caffe's two networks share; `after` are those behind the first two convolutions."""
    features = [
        Conv2d(C, w(96), kernel_size=11, stride=4),  # 227 -> 55
        *(layer() for layer in after),  # 55 -> 27
        Conv2d(w(96), w(256), kernel_size=5, padding=2, groups=2),
        *(layer() for layer in after),  # 27 -> 13
        Conv2d(w(256), w(384), kernel_size=3, padding=1),
        ReLU(),
        Conv2d(w(384), w(384), kernel_size=3, padding=1, groups=2),
        ReLU(),
        Conv2d(w(384), w(256), kernel_size=3, padding=1, groups=2),
        ReLU(),
        caffes_pool(),  # 13 -> 6
    ]
    return features, AdaptiveAvgPool2d((6, 6)), dropout_after(classes, w)


def caffes_pool() -> MaxPool2d:
    return MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)


def floor_pool() -> MaxPool2d:
    return MaxPool2d(kernel_size=3, stride=2)


def caffes_norm() -> LocalResponseNorm:
    """Over all maps, across the towers."""
    return LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0, convention="caffe")


def dropout_after(classes: int, w: Width) -> list[Layer]:
    """The dense layers of 2012: dropout behind the ReLUs."""
    return [
        Linear(w(256) * 6 * 6, w(4096)),
        ReLU(),
        Dropout(p=0.5),
        Linear(w(4096), w(4096)),
        ReLU(),
        Dropout(p=0.5),
        Linear(w(4096), classes),
    ]
