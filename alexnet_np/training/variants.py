"""Networks with one of the paper's ideas taken out, to see what it was good for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alexnet_np.layers import Dropout, Identity, Layer, LocalResponseNorm, MaxPool2d, ReLU, Sigmoid, Tanh
from alexnet_np.models import AlexNet
from alexnet_np.training.config import Config

# ablation: variant -> the changes to a configuration that make it. The first is the paper's own.
ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "activation": {  # without dropout: figure 1 was drawn without any regularisation
        "ReLU": {"dropout": 0.0},
        "tanh": {"dropout": 0.0, "activation": "tanh"},
        "sigmoid": {"dropout": 0.0, "activation": "sigmoid"},
    },
    "pooling": {"overlapping pooling, 3/2": {}, "plain pooling, 2/2": {"pooling": "plain"}},
    "lrn": {"with LRN": {}, "without LRN": {"lrn": False}},
    "dropout": {"with dropout": {}, "without dropout": {"dropout": 0.0}},
}


ACTIVATIONS: dict[str, Callable[[], Layer]] = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid}


def apply(model: AlexNet, config: Config) -> None:
    """Change the layers of `model`, in place, to what `config` says of activation, pooling, LRN and dropout."""

    def changed(layer: Layer) -> Layer:
        if isinstance(layer, ReLU):
            return ACTIVATIONS[config.activation]()
        if isinstance(layer, MaxPool2d) and config.pooling == "plain":
            return MaxPool2d(kernel_size=2, stride=2)
        if isinstance(layer, LocalResponseNorm) and not config.lrn:
            return Identity()
        if isinstance(layer, Dropout):
            layer.p = config.dropout
        return layer

    for part in (model.features, model.classifier):
        part.layers[:] = [changed(layer) for layer in part]
