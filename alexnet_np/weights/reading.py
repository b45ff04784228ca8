"""Which reader reads a weight file: its content decides, not its name."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path

import numpy as np

from alexnet_np.errors import MissingPackageError, WeightsError, one_line

SUPPORTED = ".pth and .pt of torch.save, .safetensors, .npz"


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The weights in a file, name -> array, with names as the file has them.

    Takes .pth and .pt (a state dict, or a checkpoint that holds one under "state_dict", "model_state_dict", "model" or
    "net"; zip, legacy and tar format), .safetensors and .npz. A prefix "module." or "_orig_mod.", if all names have it,
    is taken off. dtypes are the file's, but bfloat16 becomes float32, which holds each of its values exactly.
    Arrays are writable, and writing to them never changes the file. Those of a zip .pth and a .safetensors are memory
    maps: do not cut the file short while they live (replacing or deleting it does no harm), and copy what must outlive
    that. Damage is noticed where the format has checksums (zip .pth, .npz).
    Raises WeightsError, and MissingPackageError for a .safetensors without its library.
    """
    path = Path(path)
    try:
        return _read(path)
    except MissingPackageError:
        raise
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or one_line(error)}") from error
    except Exception as error:  # whatever a parser of ours or of a library trips over, the file is at fault
        raise WeightsError(f"{path}: damaged: {type(error).__name__}: {one_line(error)[:200]}") from error


def _read(path: Path) -> dict[str, np.ndarray]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise WeightsError("is a directory, not a file" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
    with path.open("rb") as file:
        head = file.read(512)
    module, function = _reader(head, path)
    arrays = getattr(importlib.import_module(f"alexnet_np.weights.{module}"), function)(path)
    if not arrays:
        raise WeightsError("holds no arrays")
    return importlib.import_module("alexnet_np.weights.state_dict").without_prefixes(arrays)


def _reader(head: bytes, path: Path) -> tuple[str, str]:
    """The module and the function that read a file which begins with `head`. Raises WeightsError if there is none."""
    if head.startswith(b"PK\x03\x04"):
        from alexnet_np.weights import zips  # only now: zipfile takes longer than all of this

        names = [member.filename for member in zips.directory(path)]
        if any(name.endswith("data.pkl") for name in names):
            return "torch_zip", "read"
        if any(name.endswith(".npy") for name in names):
            return "numpy_file", "read"
        raise WeightsError("is a zip archive without weights (neither torch.save nor numpy.savez wrote it)")
    if head.startswith(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."):  # the magic number, pickled
        return "torch_legacy", "read_stream"
    if head[257:262] == b"ustar":
        return "torch_legacy", "read_tar"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors_file", "read"
    raise WeightsError(_why_not(head))


def _why_not(head: bytes) -> str:
    """What a file is that begins with `head`, and cannot be read."""
    if not head:
        return "is empty: fetch the file again"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "is a web page, probably an error page saved as weights: fetch the file again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights that it stands for: run `git lfs pull`"
    if head.startswith(b"\x93NUMPY"):
        return "is a .npy file, one array without a name (or pickled objects, which are refused): use numpy.savez"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "refused: a pickle that torch.save did not write; save the weights with numpy.savez or torch.save"
    return f"is not a weight file of a known format; supported: {SUPPORTED}"
