"""Weights, or a whole network, into a file: the ending of its name says in which format."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np import arguments
from alexnet_np.device import as_array, to_cpu
from alexnet_np.errors import WeightsError, one_line
from alexnet_np.files import replacing
from alexnet_np.text import quoted
from alexnet_np.weights import seal
from alexnet_np.weights.steps import Network

ARRAYS = {".safetensors": "safetensors_file", ".npz": "npz_file", ".pth": "torch_write", ".pt": "torch_write"}
NETWORKS = (".onnx", ".caffemodel")
SEALED = (".safetensors", ".npz")  # in which other arrays may lie beside the weights


def write(
    path: str | os.PathLike[str],
    weights: Any,
    *,
    opset: int = 17,
    size: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a mapping name -> array, a model, or a network as plain data (weights/steps.py) to `path`.

    .safetensors, .npz and .pth (which torch.load reads, with weights_only too) hold arrays under names, a model's as in
    its state dict. .onnx and .caffemodel, with its .prototxt beside it, hold the whole network, and so take a model:
    weights alone do not say in which order it pools and normalises. For those `size` is the side of the input, by
    default what the network was made for, and `opset` ONNX's version, 13 to 20. With a model goes what it is, so that
    `anp.alexnet(None, weights=path)` is that network again: sizes, changes, classes' names, preprocessing; `metadata`:
    what is noted beside a mapping (weights/seal.py). An old file stays until the new one is whole.
    Raises WeightsError, MissingPackageError.
    """
    path = arguments.path("weights.write", "path", path)
    if path.suffix not in (*ARRAYS, *NETWORKS):
        endings = ", ".join((*ARRAYS, *NETWORKS))
        raise WeightsError(f"{path}: weights are written as {endings}, by the ending of the name")
    metadata = (
        {} if metadata is None else arguments.mapping("weights.write", "metadata", metadata, "a mapping of texts")
    )
    try:
        if path.suffix in ARRAYS:
            arrays, noted = _arrays(path, weights, metadata)
            _write_arrays(path, {name: _numbers(name, value) for name, value in arrays.items()}, noted)
        else:
            _write_network(path, _network(path, weights, size), opset)
    except OSError as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: cannot be written: {error.strerror or one_line(error)}") from error


def _arrays(path: Path, weights: Any, metadata: Mapping[str, str] | None) -> tuple[Mapping[str, Any], Any]:
    """The arrays, and what is noted beside them. Raises WeightsError."""
    if isinstance(weights, Network):
        return weights.arrays, weights.metadata
    if isinstance(weights, Mapping):
        return weights, metadata
    if hasattr(weights, "state_dict") and hasattr(weights, "described"):
        said = weights.described() if path.suffix in SEALED else weights.described().without_arrays()
        return {**weights.state_dict(), **said.arrays()}, seal.pack({"network": said.to_json()})
    raise WeightsError(f"{path}: a model or a mapping name -> array is written, not {type(weights).__name__}")


def _network(path: Path, weights: Any, size: int | None) -> Network:
    """The network as plain data. Raises WeightsError."""
    if isinstance(weights, Mapping):
        raise WeightsError(
            f"{path}: {path.suffix} holds a whole network, and weights alone do not say in which order it pools "
            "and normalises: give the model, anp.weights.write(path, model)"
        )
    if isinstance(weights, Network):
        return weights
    if hasattr(weights, "as_network"):
        return weights.as_network(size)
    raise WeightsError(f"{path}: a model is written, not {type(weights).__name__}")


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None) -> None:
    writer = importlib.import_module(f"alexnet_np.weights.formats.{ARRAYS[path.suffix]}")
    with replacing(path) as temporary:
        writer.write(temporary, arrays, metadata or None)


def _write_network(path: Path, network: Network, opset: int) -> None:
    with replacing(path) as temporary:
        if path.suffix == ".onnx":
            from alexnet_np.weights.formats import onnx_write

            onnx_write.write(temporary, network, opset)
        else:
            from alexnet_np.weights.formats import caffe_write

            caffe_write.write(temporary, network, path.with_suffix(".prototxt"))


def _numbers(name: str, value: Any) -> np.ndarray:
    array = to_cpu(as_array(value, name))
    if array.dtype.kind not in "biuf":
        raise WeightsError(f"{quoted(name)} has dtype {array.dtype}, which is no number of a network")
    return array
