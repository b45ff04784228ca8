"""Reading weights, beside torch: every format, every kind of tensor, and the checkpoints that people have."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import weight_files as wf  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import WeightsError  # noqa: E402


def same(got, want) -> None:
    assert set(got) == set(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def save_safetensors(path, state):
    from safetensors.torch import save_file

    save_file(state, path)
    return path


def save_npz(path, state):
    np.savez(path, **wf.arrays(state))
    return path


def save_npz_compressed(path, state):
    np.savez_compressed(path, **wf.arrays(state))
    return path


FORMATS = {
    "zip.pth": wf.save_zip,
    "legacy.pth": wf.save_legacy,
    "tar.pth": wf.save_tar,
    "w.safetensors": save_safetensors,
    "w.npz": save_npz,
    "compressed.npz": save_npz_compressed,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_arrays_in_order(tmp_path, name):
    state = wf.state_dict()
    got = anp.weights.read(FORMATS[name](tmp_path / name, state))
    same(got, wf.arrays(state))
    if "safetensors" not in name:  # which sorts by dtype and name
        assert list(got) == list(state)


@pytest.mark.parametrize("name", FORMATS)
def test_content_decides_not_the_name(tmp_path, name):
    state = wf.state_dict()
    path = FORMATS[name](tmp_path / name, state).rename(tmp_path / "weights.txt")
    same(anp.weights.read(str(path)), wf.arrays(state))


@pytest.mark.parametrize("name", FORMATS)
def test_arrays_are_writable_and_the_file_stays_as_it_was(tmp_path, name):
    path = FORMATS[name](tmp_path / name, wf.state_dict())
    before = path.read_bytes()
    for array in anp.weights.read(path).values():
        assert array.flags.writeable and array.flags.aligned
        array[...] = 7
    assert path.read_bytes() == before


def test_arrays_outlive_the_file(tmp_path):
    state = wf.state_dict()
    path = wf.save_zip(tmp_path / "w.pth", state)
    got = anp.weights.read(path)
    path.unlink()
    same(got, wf.arrays(state))


DTYPES = [torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


@pytest.mark.parametrize("save", [wf.save_zip, wf.save_legacy])
def test_dtypes_strides_offsets_and_shared_storages(tmp_path, save):
    base = torch.arange(60, dtype=torch.float32)
    state = {str(dtype): (base % 100).to(dtype).reshape(6, 10) for dtype in DTYPES}
    state |= {
        "bool": torch.tensor([True, False, True]),
        "transposed": base.reshape(6, 10).T,
        "offset": base[7:19],
        "every other": base.reshape(6, 10)[1::2, ::3],
        "expanded": torch.tensor([3.0, 4.0])[:, None].expand(2, 5),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "empty view": base[60:],
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "tied": base,
    }
    path = save(tmp_path / "w.pth", state)
    got, want = anp.weights.read(path), torch.load(path)
    same(got, wf.arrays(want))
    got["tied"][7] = -1.0  # one storage, as in torch
    assert got["offset"][0] == -1.0


@pytest.mark.parametrize("save", [wf.save_zip, wf.save_legacy, save_safetensors])
def test_bfloat16_becomes_float32_exactly(tmp_path, save):
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)  # every bfloat16 there is
    state = {"w": bits.view(torch.bfloat16), "b": torch.ones(3)}
    got = anp.weights.read(save(tmp_path / "w", state))["w"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.view(np.uint32), state["w"].float().numpy().view(np.uint32))


def test_big_endian(tmp_path):
    state = wf.state_dict()
    path = wf.save_zip(tmp_path / "w.pth", state)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "big.pth", "w") as big:
        for name in archive.namelist():
            content = archive.read(name)
            if "/data/" in name:
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            big.writestr(name, b"big" if name.endswith("byteorder") else content)
    got = anp.weights.read(tmp_path / "big.pth")
    same(got, wf.arrays(torch.load(tmp_path / "big.pth")))
    assert all(array.dtype.isnative for array in got.values())


def test_members_that_another_program_packed_unaligned(tmp_path):
    state = wf.state_dict()
    path = wf.save_zip(tmp_path / "w.pth", state)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "packed.pth", "w") as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    got = anp.weights.read(tmp_path / "packed.pth")
    same(got, wf.arrays(state))
    assert all(array.flags.aligned for array in got.values())


def test_torch_may_leave_out_the_checksums(tmp_path):
    state = wf.state_dict()
    torch.serialization.set_crc32_options(False)
    try:
        path = wf.save_zip(tmp_path / "w.pth", state)
    finally:
        torch.serialization.set_crc32_options(True)
    same(anp.weights.read(path), wf.arrays(state))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(tmp_path, protocol):
    state = wf.state_dict()
    same(anp.weights.read(wf.save_zip(tmp_path / "w.pth", state, pickle_protocol=protocol)), wf.arrays(state))


@pytest.mark.parametrize("save", [wf.save_zip, wf.save_legacy])
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_checkpoints(tmp_path, save, key):
    state = wf.state_dict()
    parameters = [torch.nn.Parameter(tensor) for tensor in state.values()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    sum(p.sum() for p in parameters).backward()
    optimizer.step()
    saved = {"epoch": 90, "arch": "alexnet", key: state, "best_acc1": torch.tensor(56.5)}
    saved["optimizer"] = optimizer.state_dict()
    same(anp.weights.read(save(tmp_path / "w.pth", saved)), wf.arrays(state))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module.module."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path, prefix):
    state = wf.state_dict()
    wrapped = {prefix + name: tensor for name, tensor in state.items()}
    same(anp.weights.read(wf.save_zip(tmp_path / "w.pth", wrapped)), wf.arrays(state))
    same(anp.weights.read(save_npz(tmp_path / "w.npz", wrapped)), wf.arrays(state))
    partly = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert set(anp.weights.read(wf.save_zip(tmp_path / "partly.pth", partly))) == {"module.a", "b"}


@pytest.mark.parametrize("view", [False, True])
def test_the_tar_format_beside_torch(tmp_path, view):
    state = wf.state_dict()
    path = wf.save_tar(tmp_path / "w.pth", state, view=view)
    same(wf.arrays(torch.load(path, weights_only=False)), wf.arrays(state))  # the file is what torch takes for one
    same(anp.weights.read(path), wf.arrays(state))


class MadeFromData:
    """torch.nn.Parameter as torch 0.2 pickled it: called with its data, then (requires_grad, volatile, hooks)."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce_ex__(self, protocol):
        return torch.nn.Parameter, (self.tensor,), (True, False, OrderedDict())


def test_parameters_of_torch_0_2(tmp_path):
    state = wf.state_dict()
    path = wf.save_tar(tmp_path / "w.pth", state, {name: MadeFromData(tensor) for name, tensor in state.items()})
    same(wf.arrays(torch.load(path, weights_only=False)), wf.arrays(state))
    same(anp.weights.read(path), wf.arrays(state))


def test_parameters_of_torch_0_1(tmp_path):
    """NEWOBJ of an empty Parameter, BUILD with five items; by hand, since pickle cannot be talked into writing it."""
    state = {"w": torch.arange(4.0)}
    hooks = wf.glob("collections", "OrderedDict") + b")R"
    items = wf.tup(wf.tensor_of((2, 2), (2, 1)), b"N", hooks, b"\x88", b"\x89")
    entry = wf.glob("torch.nn.parameter", "Parameter") + b")\x81" + items + b"b"
    path = wf.zip_of(tmp_path / "w.pth", wf.script(("w", entry)), {"data/0": state["w"].numpy().tobytes()})
    np.testing.assert_array_equal(anp.weights.read(path)["w"], [[0, 1], [2, 3]])


def test_an_ordered_dict_of_python_2(tmp_path):
    """Python 2 gave OrderedDict its items as an argument, and wrote strings as bytes."""
    pair = b"]q\x00(" + b"U\x01w" + wf.tensor_of((4,), (1,)) + b"e"
    saved = b"\x80\x02" + wf.glob("collections", "OrderedDict") + b"](" + pair + b"e\x85R."
    path = wf.zip_of(tmp_path / "w.pth", saved, {"data/0": np.arange(4, dtype="<f4").tobytes()})
    same(anp.weights.read(path), {"w": np.arange(4, dtype=np.float32)})


def test_npz_of_any_layout(tmp_path):
    want = {
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "big": np.arange(5, dtype=">i4"),
        "scalar": np.array(3.0, np.float32),
        "empty": np.empty((0, 3)),
        "flags": np.array([True, False]),
        "a name/with a slash": np.ones(2),
    }
    np.savez(tmp_path / "w.npz", **want)
    got = anp.weights.read(tmp_path / "w.npz")
    assert got["big"].dtype.isnative
    same(got, want | {"big": want["big"].astype(np.int32)})


def test_reading_never_imports_torch_and_importing_is_lazy(tmp_path):
    path = wf.save_zip(tmp_path / "w.pth", wf.state_dict())
    code = f"""
import sys, alexnet_np.weights
lazy = {{"zipfile", "pickletools", "urllib.request", "hashlib", "concurrent.futures", "safetensors", "rich"}}
before = set(sys.modules)
import numpy
numpy_has = {{"hashlib", "pickletools", "zipfile"}} & before  # what numpy itself may bring
assert not (lazy - numpy_has) & before, lazy & before
alexnet_np.weights.read({str(path)!r})
assert not {{"torch", "safetensors", "pickle5"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_safetensors_is_read_without_its_library(tmp_path, monkeypatch):
    path = save_safetensors(tmp_path / "w.safetensors", wf.state_dict())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    same(anp.weights.read(path), wf.arrays(wf.state_dict()))


def test_read_into_a_model(tmp_path):
    model = anp.alexnet("torchvision", width=1 / 32, num_classes=7, seed=1)
    path = tmp_path / "w.pth"
    torch.save({name: torch.from_numpy(array) for name, array in model.state_dict().items()}, path)
    other = anp.alexnet("torchvision", width=1 / 32, num_classes=7, weights=path)
    same(other.state_dict(), model.state_dict())


# What bad input gets.


def fails(path: Path | str, *words: str) -> str:
    with pytest.raises(WeightsError) as caught:
        anp.weights.read(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    assert message.startswith(str(path))
    for word in words:
        assert word in message, message
    return message


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\xef\xbb\xbf \n<html>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 244408911\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "Unable to synchronously open file"),
        (bytes(4096), "supported: .pth"),
        (b"PK\x03\x04" + bytes(100), "cut short or damaged"),
        (b"hello", "supported: .pth"),
        (pickle.dumps({"w": [1, 2]}), "holds no arrays; what is in it, unused: 'w.0' (int), 'w.1' (int)"),
    ],
)
def test_not_weights_at_all(tmp_path, content, words):
    path = tmp_path / "alexnet.pth"
    path.write_bytes(content)
    fails(path, words)


def test_one_array_without_a_name(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    fails(tmp_path / "one.npy", "an array without a name")


def test_no_file(tmp_path):
    fails(tmp_path / "missing.pth", "No such file")
    fails(tmp_path, "is a directory")
    os.mkfifo(tmp_path / "pipe")
    fails(tmp_path / "pipe", "not a regular file")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = wf.save_zip(tmp_path / "w.pth", wf.state_dict())

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    fails(path, "Permission denied")


def test_other_things_that_torch_saves(tmp_path):
    fails(wf.save_zip(tmp_path / "tensor.pth", torch.ones(3)), "bare tensor")
    fails(wf.save_zip(tmp_path / "nothing.pth", {}), "no arrays")
    fails(wf.save_zip(tmp_path / "text.pth", "weights"), "no arrays", "str")
    fails(wf.save_zip(tmp_path / "sparse.pth", {"w": torch.ones(3).to_sparse()}), "_rebuild_sparse_tensor")
    fails(wf.save_zip(tmp_path / "complex.pth", {"w": torch.ones(3, dtype=torch.complex64)}), "not a plain one")
    negated = torch.tensor([1 + 2j]).conj().imag  # a real tensor whose sign is a flag
    fails(wf.save_zip(tmp_path / "negated.pth", {"w": negated}), "not a plain one")


def test_odd_npz(tmp_path):
    np.savez(tmp_path / "objects.npz", w=np.array([{}], dtype=object))
    fails(tmp_path / "objects.npz", "pickled objects, which are refused")
    np.savez(tmp_path / "strings.npz", w=np.array(["a"]))
    fails(tmp_path / "strings.npz", "no numbers")
    with zipfile.ZipFile(tmp_path / "mixed.npz", "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY")
        archive.writestr("../../etc/passwd", b"x")
    fails(tmp_path / "mixed.npz", "damaged")
    with zipfile.ZipFile(tmp_path / "word.docx", "w") as archive:
        archive.writestr("document.xml", b"<a/>")
    fails(tmp_path / "word.docx", "without weights")


def test_odd_safetensors(tmp_path):
    header = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "f8.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    fails(tmp_path / "f8.safetensors", "F8_E4M3")
    with_offsets = '{{"w":{{"dtype":"F32","shape":{},"data_offsets":{}}}}}'.format
    overlapping = with_offsets("[1]", "[0,4]")[:-1] + "," + with_offsets("[1]", "[0,4]").replace('"w"', '"v"')[1:]
    headers = [
        *(with_offsets("[1]", offsets) for offsets in ("[0,400]", "[8,12]", "[4,0]", "[-4,0]", "[0,3]", "[0.0,4.0]")),
        *(with_offsets(shape, "[0,4]") for shape in ("[2]", "[-1,-1]", "[1.0]", "[true]", "[]extra", '"1"')),
        with_offsets("[0]", "[0,0]"),  # leaves four bytes that nothing claims
        overlapping,
        "{" * 100_000,
        "[]",
        '{"w":1}',
        '{"w":{"dtype":{},"shape":[1],"data_offsets":[0,4]}}',
    ]
    for text in headers:
        header = text.encode()
        (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        fails(tmp_path / "w.safetensors")
    (tmp_path / "long.safetensors").write_bytes((1 << 31).to_bytes(8, "little") + b"{" + bytes(100))
    fails(tmp_path / "long.safetensors", "header of 2147483648 bytes")
