"""IDX files and Fashion-MNIST: what is read, and one line for everything damaged."""

import gzip
import hashlib
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alexnet_np.data import idx
from alexnet_np.data.idx import IDX_TYPES, fashion_mnist, read_idx
from alexnet_np.errors import ArgumentError, DataError


def idx_bytes(array: np.ndarray) -> bytes:
    code = next(code for code, name in IDX_TYPES.items() if np.dtype(name) == array.dtype.newbyteorder(">"))
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path, array):
    data = idx_bytes(array)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


@settings(max_examples=60, deadline=None)
@given(
    array=st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    ),
    name=st.sampled_from(["plain", "zipped.gz"]),
)
def test_every_type_and_shape_comes_back(tmp_path_factory, array, name):
    path = tmp_path_factory.getbasetemp() / name
    write_idx(path, array)
    found = read_idx(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


IMAGES = idx_bytes(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
DAMAGED = {
    "empty": (b"", "not an IDX file: it begins with nothing"),
    "html": (b"<html>Not Found</html>", "not an IDX file: it begins with 3c 68 74 6d"),
    "type": (b"\0\0\x07\x01\0\0\0\x01\x05", "not an IDX file"),
    "header": (IMAGES[:10], "truncated"),
    "short": (IMAGES[:-1], "truncated: 59 of the 60 bytes"),
    "long": (IMAGES + b"\0", "goes on after the 60 bytes"),
    "huge": (b"\0\0\x0e\x04" + b"\xff" * 16 + bytes(100), "truncated: 100 of the"),
    "short.gz": (gzip.compress(IMAGES)[:-12], "cannot be read"),
    "flipped.gz": (gzip.compress(IMAGES)[:20] + b"\xff\xff" + gzip.compress(IMAGES)[22:], "cannot be read"),
    "bomb.gz": (gzip.compress(IMAGES + bytes(10_000_000)), "goes on after the 60 bytes"),
    "other.gz": (gzip.compress(b"PK\x03\x04"), "not an IDX file"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line_with_its_name(tmp_path, name):
    data, reason = DAMAGED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=reason) as caught:
        read_idx(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="gone: no such file"):
        read_idx(tmp_path / "gone")
    with pytest.raises(DataError, match="cannot be read: .*directory"):
        read_idx(tmp_path)


IMAGE_SET = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
LABEL_SET = np.array([0, 9, 3, 3, 1, 0], np.uint8)


def write_set(folder, suffix=".gz", labels=LABEL_SET):
    folder.mkdir(parents=True, exist_ok=True)
    write_idx(folder / f"t10k-images-idx3-ubyte{suffix}", IMAGE_SET)
    write_idx(folder / f"t10k-labels-idx1-ubyte{suffix}", labels)


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_fashion_mnist_from_a_folder(tmp_path, suffix):
    write_set(tmp_path, suffix)
    dataset = fashion_mnist("test", tmp_path)
    np.testing.assert_array_equal(np.stack([dataset.pixels(i) for i in range(6)])[..., 0], IMAGE_SET)
    assert [dataset.classes[target] for target in dataset.targets[:2]] == ["t-shirt", "ankle boot"]


def test_fashion_mnist_refuses_by_name_what_is_wrong(tmp_path):
    with pytest.raises(ArgumentError, match="split must be 'train' or 'test', got 'val'"):
        fashion_mnist("val", tmp_path)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz is not in this folder; fetch it from https://"):
        fashion_mnist("test", tmp_path)
    write_set(tmp_path, labels=LABEL_SET[:5])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz: not a set of images and their labels: .*\(5,\)"):
        fashion_mnist("test", tmp_path)
    write_set(tmp_path, labels=LABEL_SET + 1)
    with pytest.raises(DataError, match="targets of 1 to 10, but there are 10 classes"):
        fashion_mnist("test", tmp_path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server with the test set as published, and an empty cache: the folder that it serves."""
    write_set(tmp_path / "site")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "site")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("ALEXNET_NP_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(idx, "DEBIAN_FOLDER", tmp_path / "no-debian")
        monkeypatch.setattr(idx, "FASHION_MNIST_URL", f"http://127.0.0.1:{http.server_port}/")
        published = []
        for path in sorted((tmp_path / "site").iterdir()):
            data = path.read_bytes()
            published.append(idx.Published(path.name, len(data), hashlib.sha256(data).hexdigest()))
        monkeypatch.setitem(idx.FASHION_MNIST_FILES, "test", tuple(published))
        yield tmp_path / "site"
        http.shutdown()
        thread.join()


def test_fashion_mnist_is_downloaded_once(server, tmp_path):
    np.testing.assert_array_equal(fashion_mnist("test", progress=False).images[..., 0], IMAGE_SET)
    for file in server.iterdir():
        file.unlink()
    np.testing.assert_array_equal(fashion_mnist("test", progress=False).targets, LABEL_SET)
    assert len(list((tmp_path / "cache" / "fashion-mnist").iterdir())) == 2


def replace_by_html(file):
    file.write_bytes(b"<html>")


def flip_a_bit(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("spoil", [replace_by_html, flip_a_bit, lambda file: file.unlink()])
def test_a_wrong_download_is_one_line_and_leaves_nothing(server, tmp_path, spoil):
    spoil(server / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match=r"cannot download http://.*t10k-images.*: .*put the file at") as caught:
        fashion_mnist("test", progress=False)
    assert len(str(caught.value).splitlines()) == 1
    assert not list((tmp_path / "cache" / "fashion-mnist").iterdir())


@pytest.mark.skipif(not idx.DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist():
    dataset = fashion_mnist("test")
    assert dataset.images.shape == (10_000, 28, 28, 1)
    assert np.bincount(dataset.targets).tolist() == [1000] * 10
    assert len(dataset.classes) == 10
