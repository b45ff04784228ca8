"""AlexNet, to study, to check against and to measure with: every layer's forward and backward by hand.

N  images in a batch        KH, KW  kernel height and width
C  channels                 OH, OW  output height and width
H, W  height and width      F  filters (output channels)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from alexnet_np.errors import (
    AlexNetError,
    ArgumentError,
    BackendError,
    CheckpointError,
    DataError,
    DtypeError,
    ImageError,
    MissingPackageError,
    ShapeError,
    WeightsError,
)

if TYPE_CHECKING:
    from alexnet_np import layers, ops, study, weights
    from alexnet_np.backend import available_backends, use_backend
    from alexnet_np.identity import alexnet, preprocess
    from alexnet_np.layers import no_grad
    from alexnet_np.measure.tuning import choices, tune
    from alexnet_np.models import AlexNet
    from alexnet_np.plan import compile, compile_training
    from alexnet_np.study.compare import compare
    from alexnet_np.study.lpips import LPIPS, lpips
    from alexnet_np.study.summary import summary
    from alexnet_np.study.verify import verify
    from alexnet_np.study.walk import walk
    from alexnet_np.threads import get_num_threads, set_num_threads
    from alexnet_np.training.sgd import SGD

    categories: list[str]

__version__ = "0.1.0"

# name -> the module it lives in, loaded when first used, so that `import alexnet_np` stays quick
_LAZY = {
    "AlexNet": "alexnet_np.models",
    "LPIPS": "alexnet_np.study.lpips",
    "SGD": "alexnet_np.training.sgd",
    "alexnet": "alexnet_np.identity",
    "available_backends": "alexnet_np.backend",
    "compare": "alexnet_np.study.compare",
    "compile": "alexnet_np.plan",
    "compile_training": "alexnet_np.plan",
    "choices": "alexnet_np.measure.tuning",
    "get_num_threads": "alexnet_np.threads",
    "lpips": "alexnet_np.study.lpips",
    "no_grad": "alexnet_np.layers",
    "preprocess": "alexnet_np.identity",
    "set_num_threads": "alexnet_np.threads",
    "summary": "alexnet_np.study.summary",
    "tune": "alexnet_np.measure.tuning",
    "use_backend": "alexnet_np.backend",
    "verify": "alexnet_np.study.verify",
    "walk": "alexnet_np.study.walk",
}
_SUBMODULES = ("layers", "ops", "study", "weights")

__all__ = [
    "AlexNet",
    "AlexNetError",
    "ArgumentError",
    "BackendError",
    "CheckpointError",
    "DataError",
    "DtypeError",
    "ImageError",
    "LPIPS",
    "MissingPackageError",
    "SGD",
    "ShapeError",
    "WeightsError",
    "alexnet",
    "available_backends",
    "categories",
    "choices",
    "compare",
    "compile",
    "compile_training",
    "get_num_threads",
    "layers",
    "lpips",
    "no_grad",
    "ops",
    "preprocess",
    "set_num_threads",
    "study",
    "summary",
    "tune",
    "use_backend",
    "verify",
    "walk",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"alexnet_np.{name}")
    if name == "categories":
        value = importlib.import_module("alexnet_np.data.labels").imagenet_categories()
    elif name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module 'alexnet_np' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
