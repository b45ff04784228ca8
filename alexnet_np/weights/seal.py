"""What a file of weights says beside its numbers: which network they are of, how they were made, and a checksum.

    metadata["alexnet_np"] = JSON of {"network": ..., whatever else was noted, "sha256": of all of it and of the arrays}

One entry, because a .safetensors lists several in an order left to chance, and equal runs end in equal files. What the
network is, description.py reads from it. A .npz has the same text as its zip file's comment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from alexnet_np.errors import WeightsError

KEY = "alexnet_np"


def pack(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> dict[str, str]:
    """The metadata that says `about` (whatever JSON takes); with `arrays` their checksum too."""
    if arrays is not None:
        about = {**about, "sha256": digest(arrays, about)}
    return {KEY: json.dumps(about)}


def unpack(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What `pack` was given, and the checksum; empty for the file of somebody else. Raises WeightsError."""
    try:
        about = json.loads(metadata.get(KEY, "{}"))
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise WeightsError("damaged: what it says of its network cannot be read")
    return about


def without_state(metadata: Mapping[str, str]) -> dict[str, str]:
    """What stays true of the weights wherever they are written: of which network they are."""
    network = unpack(metadata).get("network")
    return {} if network is None else pack({"network": network})


def check(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
    """Raises WeightsError unless all the file's `arrays`, and what it says, have the checksum it was written with."""
    about = unpack(metadata)
    if "sha256" in about and about.pop("sha256") != digest(arrays, about):
        raise WeightsError("damaged: its contents do not have the checksum they were written with")


def digest(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
    """SHA-256 over what is said, and every array's name, dtype, shape and numbers."""
    found = hashlib.sha256(json.dumps(about).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()
