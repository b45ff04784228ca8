"""Weight files, read without torch: .pth (every format torch.save has had), .safetensors and .npz.

No file can make this package run code or fill the memory: what it may contain is listed, and the rest is refused with
a WeightsError of one line. What a file is, its content decides, not its name.

    reading.py       read: which reader for which content
    pickled.py       the pickle in a .pth, as data
    tensors.py       storages, and tensors as views of them
    torch_zip.py, torch_legacy.py, safetensors_file.py, numpy_file.py    the formats
    state_dict.py    which part of a checkpoint is the state dict
    registry.py      published weights: find, download, load
    fitting.py       match, check_finite: does a mapping fit a model?
    convert.py       inspect, write
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_np.weights.convert import inspect, write
    from alexnet_np.weights.fitting import check_finite, match
    from alexnet_np.weights.reading import read
    from alexnet_np.weights.registry import download, find, load

# name -> the module it lives in, loaded when first used: zipfile, urllib and hashlib take longer than all of this
_LAZY = {
    "check_finite": "fitting",
    "download": "registry",
    "find": "registry",
    "inspect": "convert",
    "load": "registry",
    "match": "fitting",
    "read": "reading",
    "write": "convert",
}

__all__ = ["check_finite", "download", "find", "inspect", "load", "match", "read", "write"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'alexnet_np.weights' has no attribute {name!r}")
    return getattr(importlib.import_module(f"alexnet_np.weights.{_LAZY[name]}"), name)
