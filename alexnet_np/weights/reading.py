"""Which reader reads a weight file: its content decides, not its name."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_np import arguments
from alexnet_np.errors import MissingPackageError, WeightsError, one_line
from alexnet_np.weights.finding import mapping, only
from alexnet_np.weights.leaves import Contents, read_all
from alexnet_np.weights.source import Source, source_of

SUPPORTED = (
    ".pth and .pt of torch.save and torch.jit.save, .safetensors, .npz, .npy, .onnx, .caffemodel, .mat of MatConvNet, "
    "HDF5, .pdparams of Paddle, checkpoints of cuda-convnet"
)
# what a file begins with, and where -> its reader
BEGINNINGS = (
    (b"ustar", 257, ("torch_legacy", "read_tar")),
    (b"\x93NUMPY", 0, ("npy_file", "read")),
    (b"\x89HDF\r\n\x1a\n", 0, ("hdf5_file", "read")),
    (b"MATLAB 5.0 MAT-file", 0, ("mat_file", "read")),
    (b"\x1f\x8b\x08", 0, ("packed", "read_gzip")),
)
# A protocol buffer says nothing of itself. These are first fields: of ONNX's ModelProto ir_version, graph and
# opset_import; of Caffe's NetParameter name, layers, input and layer.
FIRST_FIELDS = dict.fromkeys((b"\x08", b"\x3a", b"\x42"), "onnx_file")
FIRST_FIELDS |= dict.fromkeys((b"\x0a", b"\x12", b"\x1a", b"\xa2"), "caffe_file")


def read(path: str | os.PathLike[str], part: str | None = None) -> dict[str, Any]:
    """The weights in a file, name -> array, with names as the file has them.

    Takes .pth and .pt (whatever torch.save or torch.jit.save wrote, the formats before the zip file included),
    .safetensors, .npz, .npy and pickles of arrays. Of what a file holds, the one mapping is taken whose shapes are
    those of a network (finding.py), whatever surrounds it; `part` names it where there are two. What wrappers put
    before all names ("module.", "_orig_mod.") is taken off. dtypes are the file's, but bfloat16 becomes float32, which
    holds each of its values exactly.

    Arrays are writable and in memory of their own: whatever happens to the file later, they stay. A file that is
    changed while it is read is refused. Damage is noticed where the format has checksums (zip .pth, .npz).
    Raises WeightsError, and MissingPackageError for a format whose library is not installed.
    """
    with opened(path) as contents:
        return read_all(mapping(only(contents, part)).leaves)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Contents]:
    """What a file holds, with no array read; they are read within the block.

    Raises WeightsError that begins with the file's name, for its own faults and those that the block finds.
    """
    path = arguments.path("weights", "path", path)
    try:
        path = newest_checkpoint(path) or path
        with source_of(path) as source:
            yield _contents(source)
    except MissingPackageError:
        raise
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or one_line(error)}") from error
    except Exception as error:  # whatever a parser of ours or of a library trips over, the file is at fault
        raise WeightsError(f"{path}: damaged: {type(error).__name__}: {one_line(error)[:200]}") from error


def newest_checkpoint(path: Path) -> Path | None:
    """The newest in a folder of cuda-convnet's checkpoints; None where a folder, or the path, has no such file.

    That program calls them epoch.batch and goes on from the newest (python_util/gpumodel.py). The name says only which
    file is looked at: what it is, its content decides, as of every other file.
    """
    named = [(re.fullmatch(r"(\d+)\.(\d+)", file.name), file) for file in (path.iterdir() if path.is_dir() else ())]
    found = [((int(name[1]), int(name[2])), file) for name, file in named if name and file.is_file()]
    return max(found)[1] if found else None


def _contents(source: Source) -> Contents:
    module, function = _reader(source)
    return getattr(importlib.import_module(f"alexnet_np.weights.formats.{module}"), function)(source)


def _reader(source: Source) -> tuple[str, str]:
    """The module and the function that read a file. Raises WeightsError if there is none."""
    head = source.head(512)
    if head.startswith(b"PK\x03\x04"):
        return _reader_of_zip(source)
    for beginning, place, reader in BEGINNINGS:
        if head[place : place + len(beginning)] == beginning:
            return reader
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors_file", "read"
    if b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." in head[:32]:  # torch's magic number, pickled in whatever protocol
        return "torch_legacy", "read_stream"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle_file", "read"
    if head[:1] in FIRST_FIELDS:
        return FIRST_FIELDS[head[:1]], "read"
    raise WeightsError(_why_not(head))


def _reader_of_zip(source: Source) -> tuple[str, str]:
    from alexnet_np.weights.formats import zips  # only now: zipfile takes longer than all of this

    names = [member.filename for member in zips.directory(source)]
    if any(name.endswith("data.pkl") for name in names):
        return "torch_zip", "read"
    if any(name.endswith(".npy") for name in names):
        return "npz_file", "read"
    if names == ["data"]:
        return "packed", "read_zip"
    raise WeightsError("is a zip archive without weights (neither torch.save nor numpy.savez wrote it)")


def _why_not(head: bytes) -> str:
    """What a file is that begins with `head`, and cannot be read."""
    if not head:
        return "is empty: fetch the file again"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "is a web page, probably an error page saved as weights: fetch the file again"
    if head.startswith(b"MATLAB 7.3"):
        return "is a .mat of version 7.3: save it in MATLAB with save(..., '-v7')"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights that it stands for: run `git lfs pull`"
    return f"is not a weight file of a known format; supported: {SUPPORTED}"
