"""Zip and .npy files that lie about what they hold."""

from __future__ import annotations

import io
import struct
import zipfile

import weight_files as wf  # noqa: E402
from hostile import fails
from weight_files import tensor_of  # noqa: E402


def test_zip_bombs(tmp_path):
    path, zeros = tmp_path / "w.pth", bytes(64 << 20)
    script = wf.script(("w", tensor_of((1 << 24,), (1,), storage=wf.storage_id(1 << 24))))
    wf.zip_of(path, script, {"data/0": zeros}, compression=zipfile.ZIP_DEFLATED)
    fails(path, "refused", "is compressed")
    wf.zip_of(path, b"\x80\x02" + bytes(32 << 20), {})
    fails(path, "refused", "its pickle has")
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"{i}.npy", zeros)
    fails(tmp_path / "w.npz", "refused", "compressed")
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("w.npy", bytes(1 << 20))
    fails(tmp_path / "lzma.npz", "never uses")


def test_members_that_share_their_bytes(tmp_path):
    """A directory of many entries for one member makes every one of them a tensor of its own."""
    path = tmp_path / "w.pth"
    storages = [wf.storage_id(1 << 20, key=str(i), kind="BFloat16Storage") for i in range(100)]
    script = wf.script(*[(f"w{i}", tensor_of((1 << 20,), (1,), storage=s)) for i, s in enumerate(storages)])
    wf.zip_of(path, script, {"data/0": bytes(2 << 20)})
    with zipfile.ZipFile(path, "a") as archive:
        shared = archive.getinfo("archive/data/0")
        for i in range(1, 100):
            twin = zipfile.ZipInfo(f"archive/data/{i}")
            for name in "CRC", "file_size", "compress_size", "header_offset":
                setattr(twin, name, getattr(shared, name))
            archive.filelist.append(twin)
        archive._didModify = True
    fails(path, "refused")


def test_a_directory_of_many_members(tmp_path):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("archive/data.pkl", b"N.")
    member, entry = raw.getvalue()[: archive.start_dir], raw.getvalue()[archive.start_dir : -22]  # then an end of 22
    count = (8 << 20) // len(entry)
    counts, place = (count & 0xFFFF, count & 0xFFFF), (count * len(entry), len(member))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *counts, *place, 0)
    (tmp_path / "w.pth").write_bytes(member + entry * count + end)
    fails(tmp_path / "w.pth", "refused", "in one piece")


def test_npy_headers_that_lie(tmp_path):
    for shape in ("(1099511627776,)", "(4,)", "(-1,)", "(1,2,'x')", "((((((((1,),),),),),),),)"):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
        with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
            archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(12))
        fails(tmp_path / "w.npz", "damaged")


def test_an_npy_that_ends_before_its_numbers_do(tmp_path):
    """The compressed stream is shorter than the directory says, and its checksum is right for what there is."""
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    header += b"{'descr': '<f4', 'fortran_order': False, 'shape': (25,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", header + bytes(60))
    raw = (tmp_path / "w.npz").read_bytes()
    sizes = struct.pack("<L", len(header) + 60), struct.pack("<L", len(header) + 100)
    assert raw.count(sizes[0]) == 2
    (tmp_path / "w.npz").write_bytes(raw.replace(*sizes))
    fails(tmp_path / "w.npz", "cut short")
