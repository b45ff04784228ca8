"""Weight files for the tests: written by torch, by hand where torch no longer writes the format, and by attackers."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


# torchvision's names; the shapes at width 1 and with 1000 classes are torchvision's too
def shapes(maps: tuple[int, ...], units: int, classes: int) -> dict[str, tuple[int, ...]]:
    """By `maps` of each convolution and `units` of the two hidden dense layers."""
    names = "features.0", "features.3", "features.6", "features.8", "features.10"
    sizes = zip(names, maps, (3, *maps), (11, 5, 3, 3, 3), strict=False)
    convolutions = {name: (F, C, K, K) for name, F, C, K in sizes}
    dense = {"classifier.1": (units, 36 * maps[-1]), "classifier.4": (units, units), "classifier.6": (classes, units)}
    return convolutions | dense


FULL = shapes((64, 192, 384, 256, 256), 4096, 1000)
NARROW = shapes((2, 3, 4, 3, 2), 6, 10)


def state_dict(shapes: Mapping[str, tuple[int, ...]] = NARROW, seed: int = 0) -> OrderedDict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape, generator=generator)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]  # as model.state_dict() has it
    return state


def arrays(state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


def save_zip(path: Path, saved: Any, **options: Any) -> Path:
    torch.save(saved, path, **options)
    return path


def save_legacy(path: Path, saved: Any) -> Path:
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    return path


class _TarPickler(pickle.Pickler):
    """Tensors are the numbers under which the other two members have them, as torch 0.1 did it."""

    def __init__(self, stream: io.BytesIO, keys: Mapping[int, str]) -> None:
        super().__init__(stream, 2)
        self.keys = keys

    def persistent_id(self, value: Any) -> str | None:
        return self.keys.get(id(value))


def save_tar(path: Path, state: Mapping[str, torch.Tensor], saved: Any = None, view: bool = False) -> Path:
    """The format of torch before 0.1.10, written from what torch.load reads (torch.serialization._legacy_load).

    `saved` is what is pickled, by default `state`. With `view` every tensor's storage is a view of one large storage.
    """
    keys = {id(tensor): str(1000 + i) for i, tensor in enumerate(state.values())}
    whole = torch.cat([tensor.flatten() for tensor in state.values()])
    storages, tensors, main = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pieces = {1: whole} if view else dict(enumerate(state.values()))
    pickle.dump(len(pieces), storages, 2)
    for key, piece in pieces.items():
        pickle.dump((key, "cpu", torch.FloatStorage), storages, 2)
        storages.write(struct.pack("<q", piece.numel()) + piece.contiguous().numpy().tobytes())
    views, start = [], 0
    for i, tensor in enumerate(state.values()):
        views.append((100 + i, 1, start, tensor.numel()))
        start += tensor.numel()
    pickle.dump(views if view else [], storages, 2)
    pickle.dump(len(keys), tensors, 2)
    for i, tensor in enumerate(state.values()):
        pickle.dump((1000 + i, 100 + i if view else i, torch.FloatTensor), tensors, 2)
        steps = tensor.contiguous().stride()
        sizes = struct.pack(f"<{2 * tensor.ndim}q", *tensor.shape, *steps)
        tensors.write(struct.pack("<ii", tensor.ndim, 0) + sizes + struct.pack("<q", 0))
    _TarPickler(main, keys).dump(state if saved is None else saved)
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, stream in {"storages": storages, "tensors": tensors, "pickle": main}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(stream.getvalue()), 1483228800.25  # type: ignore[assignment]  # a PAX header
            archive.addfile(member, io.BytesIO(stream.getvalue()))
    return path


def zip_of(path: Path, script: bytes, members: Mapping[str, bytes] | None = None, compression: int = 0) -> Path:
    """A zip file of torch.save's layout around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", script)
        for name, content in (members or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


def stream_of(path: Path, script: bytes, tail: bytes = b"") -> Path:
    """A legacy stream around any pickle."""
    head = [pickle.dumps(item, 2) for item in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join(head) + script + tail)
    return path


# Assembling pickles by hand, opcode by opcode.


def glob(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tup(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def storage_id(numel: int = 4, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return tup(text("storage"), glob("torch", kind), text(key), text("cpu"), number(numel)) + b"Q"


def tensor_of(shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, storage: bytes | None = None) -> bytes:
    parts = (
        storage_id() if storage is None else storage,
        number(offset),
        tup(*map(number, shape)),
        tup(*map(number, stride)),
        b"\x89",
        glob("collections", "OrderedDict") + b")R",
    )
    return glob("torch._utils", "_rebuild_tensor_v2") + tup(*parts) + b"R"


def script(*entries: tuple[str, bytes]) -> bytes:
    """The pickle of a dict name -> value."""
    return b"\x80\x04}(" + b"".join(text(name) + value for name, value in entries) + b"u."
