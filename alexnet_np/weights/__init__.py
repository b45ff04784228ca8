"""Weight files, read without the program that wrote them: .pth in every format, TorchScript, .safetensors, .npz, .npy.

No file can make this package run code or fill the memory: what it may contain is listed, and the rest is left alone or
refused with a WeightsError of one line. What a file is, its content decides, not its name.

    reading.py       read: which reader for which content
    source.py        the open file: read at any place, never mapped
    leaves.py        an array that has not been read yet, and what a file holds
    finding.py       which of the arrays in a file are the weights
    fitting.py       fit, match, check_finite: do they fit a model?
    comparing.py     in what two networks of the same shapes differ
    layouts.py       TensorFlow's order of axes to torch's
    steps.py         the layers of a network as plain data, as some files have them
    memory.py        a mapping in memory, as if it were a file
    registry.py      published weights: find, download, load
    inspecting.py    inspect: what is in a file
    writing.py       write: weights, or a whole network, into a file
    transforms.py    a network changed exactly: channels, mean, groups, dropout
    lrn.py           LRN in a file, in every dialect
    seal.py          what a file says beside its numbers
    formats/         one file a format
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_np.weights.fitting import check_finite, match
    from alexnet_np.weights.inspecting import inspect
    from alexnet_np.weights.reading import read
    from alexnet_np.weights.registry import download, find, load
    from alexnet_np.weights.writing import write

# name -> the module it lives in, loaded when first used: zipfile, urllib and hashlib take longer than all of this
_LAZY = {
    "check_finite": "fitting",
    "download": "registry",
    "find": "registry",
    "inspect": "inspecting",
    "load": "registry",
    "match": "fitting",
    "read": "reading",
    "write": "writing",
}

__all__ = ["check_finite", "download", "find", "inspect", "load", "match", "read", "write"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'alexnet_np.weights' has no attribute {name!r}")
    return getattr(importlib.import_module(f"alexnet_np.weights.{_LAZY[name]}"), name)
