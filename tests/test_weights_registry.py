"""Published weights: found in the caches, downloaded whole or not at all, from a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np import download
from alexnet_np.errors import MissingPackageError, WeightsError
from alexnet_np.weights import registry

NAME = "IMAGENET1K_V1"
WANT = {"features.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "features.0.bias": np.ones(2, np.float32)}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `bodies[path]`: (status, body, the Content-Length that it claims)."""

    bodies: dict[str, tuple[int, bytes, int]] = {}
    requests: list[str] = []

    def do_GET(self):
        self.requests.append(self.path)
        status, body, length = self.bodies.get(self.path, (404, b"no such file", 12))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def content(tmp_path):
    anp.weights.write(tmp_path / "published.npz", WANT)
    return (tmp_path / "published.npz").read_bytes()


@pytest.fixture
def published(tmp_path, monkeypatch, address, content):
    """The registry's entry, replaced by a small file on the server; empty caches under tmp_path."""
    Handler.bodies, Handler.requests = {"/good": (200, content, len(content))}, []
    monkeypatch.setenv("ALEXNET_NP_HOME", str(tmp_path / "ours"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    entry = registry.ENTRIES[NAME]._replace(
        url=f"{address}/good", size=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setitem(registry.ENTRIES, NAME, entry)

    def change(**fields):
        monkeypatch.setitem(registry.ENTRIES, NAME, entry._replace(**fields))

    return change


def ours(tmp_path) -> Path:
    return tmp_path / "ours" / registry.ENTRIES[NAME].file


def torch_hub(tmp_path) -> Path:
    return tmp_path / "torch" / "hub" / "checkpoints" / registry.ENTRIES[NAME].file


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def refused(*words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        anp.weights.download(NAME, progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_the_entry_is_torchvisions():
    entry = registry.ENTRIES[NAME]
    assert entry.url.endswith(entry.file) and entry.sha256.startswith(entry.file.split("-")[-1].removesuffix(".pth"))
    assert registry.entry("DEFAULT") is entry
    with pytest.raises(WeightsError, match="IMAGENET1K_V1, .*DEFAULT"):
        registry.entry("IMAGENET1K_V2")


def test_download_then_find_then_load(tmp_path, published):
    assert anp.weights.find(NAME) is None
    path = anp.weights.download(NAME, progress=False)
    assert path == ours(tmp_path) == anp.weights.find(NAME) == anp.weights.find("DEFAULT")
    for name, array in anp.weights.load(NAME).items():
        np.testing.assert_array_equal(array, WANT[name])
    assert Handler.requests == ["/good"]


def test_load_downloads_once(tmp_path, published):
    assert set(anp.weights.load(NAME)) == set(anp.weights.load("DEFAULT")) == set(WANT)
    assert Handler.requests == ["/good"]


def test_a_file_in_torch_hubs_cache_is_used(tmp_path, published, content):
    path = put(torch_hub(tmp_path), content)
    assert anp.weights.find(NAME) == path
    assert set(anp.weights.load(NAME)) == set(WANT)
    assert Handler.requests == []
    put(ours(tmp_path), content)
    assert anp.weights.find(NAME) == ours(tmp_path)  # ours first


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-1], lambda raw: raw[:-1] + b"?", lambda raw: b""])
def test_a_spoilt_file_is_not_the_published_one(tmp_path, published, content, spoil):
    put(ours(tmp_path), spoil(content))
    put(torch_hub(tmp_path), spoil(content))
    assert anp.weights.find(NAME) is None
    assert set(anp.weights.load(NAME)) == set(WANT)
    assert ours(tmp_path).read_bytes() == content  # replaced by the good one


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path, published, content, monkeypatch):
    path = put(torch_hub(tmp_path), content)
    hashed, digest = [], hashlib.file_digest

    def counting(file, name):
        hashed.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    assert anp.weights.find(NAME) == anp.weights.find(NAME) == path
    assert len(hashed) == 1
    times = path.stat()
    path.write_bytes(content[:-1] + b"?")  # the same size, and even the same modification time
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert anp.weights.find(NAME) is None
    assert len(hashed) == 2


def test_a_cache_that_cannot_be_written_to_only_costs_the_hashing(tmp_path, published, content):
    path = put(torch_hub(tmp_path), content)
    (tmp_path / "ours").write_text("a file where the folder should be")
    assert anp.weights.find(NAME) == path
    shutil.rmtree(tmp_path / "torch")
    refused("cannot download", "put it at")


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda raw: (404, b"gone", 4), "404"),
        (lambda raw: (503, b"", 0), "503"),
        (lambda raw: (200, raw[:-10], len(raw)), "bytes"),  # the connection ends early
        (lambda raw: (200, raw[:-10], len(raw) - 10), "bytes"),
        (lambda raw: (200, raw + b"more", len(raw) + 4), "more than"),
        (lambda raw: (200, raw[:50] + b"?" + raw[51:], len(raw)), "SHA-256"),
        (lambda raw: (200, b"<html>log in to the hotel</html>", 32), "32 of"),
    ],
)
def test_nothing_but_the_whole_file_arrives(tmp_path, published, content, answer, words):
    Handler.bodies = {"/good": answer(content)}
    refused(words, registry.ENTRIES[NAME].url, str(ours(tmp_path)))
    assert list((tmp_path / "ours").iterdir()) == []
    Handler.bodies = {"/good": (200, content, len(content))}
    assert anp.weights.download(NAME, progress=False).read_bytes() == content  # and the next try may succeed


def test_a_server_that_does_not_stop_is_left(tmp_path, published, content, monkeypatch):
    received = []

    @contextmanager
    def counting(*_):
        yield received.append

    monkeypatch.setattr(download, "progress_bar", counting)
    monkeypatch.setattr(download, "CHUNK", 100)
    Handler.bodies = {"/good": (200, content + bytes(1 << 20), len(content) + (1 << 20))}
    refused("more than")
    assert sum(received) <= len(content) + 100


def test_a_failed_download_leaves_the_old_file(tmp_path, published, content):
    put(ours(tmp_path), b"older")
    Handler.bodies = {}
    refused("404", f"{ours(tmp_path)} has 5 bytes instead of {len(content)}")
    assert ours(tmp_path).read_bytes() == b"older"


def test_without_a_network(tmp_path, published):
    published(url="http://127.0.0.1:9/alexnet-owt-7be5be79.pth")
    refused("127.0.0.1:9/alexnet-owt-7be5be79.pth", "alexnet-owt-7be5be79.pth", str(ours(tmp_path)), "put it at")
    published(url="http://no-such-host.invalid/x.pth")
    refused("no-such-host.invalid", "put it at")


def test_an_interrupt_leaves_nothing(tmp_path, published, monkeypatch):
    class Interrupted:
        def update(self, part):
            raise KeyboardInterrupt

    monkeypatch.setattr(hashlib, "sha256", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        anp.weights.download(NAME, progress=False)
    assert list((tmp_path / "ours").iterdir()) == []


def test_the_progress_bar(tmp_path, published, capsys, monkeypatch):
    """On a terminal; elsewhere there is none."""
    pytest.importorskip("rich")
    monkeypatch.setenv("FORCE_COLOR", "1")
    anp.weights.download(NAME)
    shown = capsys.readouterr()
    assert shown.out == "" and registry.ENTRIES[NAME].file in shown.err


def test_the_progress_bar_without_rich(tmp_path, published, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
    with pytest.raises(MissingPackageError, match="rich"):
        anp.weights.download(NAME)
    assert list((tmp_path / "ours").iterdir()) == []


def test_where_the_caches_are(monkeypatch, tmp_path):
    for name in ("ALEXNET_NP_HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    entry = registry.ENTRIES[NAME]
    assert registry.places(entry) == [
        tmp_path / ".cache" / "alexnet-np" / entry.file,
        tmp_path / ".cache" / "torch" / "hub" / "checkpoints" / entry.file,
    ]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert registry.places(entry) == [
        tmp_path / "xdg" / "alexnet-np" / entry.file,
        tmp_path / "xdg" / "torch" / "hub" / "checkpoints" / entry.file,
    ]
    torch = pytest.importorskip("torch")
    assert registry.torch_hub() == Path(torch.hub.get_dir()) / "checkpoints"
    monkeypatch.setenv("TORCH_HOME", "~/th")
    assert registry.torch_hub() == Path(torch.hub.get_dir()) / "checkpoints" == tmp_path / "th" / "hub" / "checkpoints"


def test_load_takes_files_and_names_the_published_weights(tmp_path, published, content):
    path = put(tmp_path / "mine.npz", content)
    assert set(anp.weights.load(path)) == set(anp.weights.load(str(path))) == set(WANT)
    with pytest.raises(
        WeightsError, match="mine.pth: neither a run's folder nor a file nor one of the published weights IMAGENET1K_V1"
    ):
        anp.weights.load(tmp_path / "mine.pth")
    (tmp_path / "link.pth").symlink_to("gone.pth")
    with pytest.raises(WeightsError, match="link.pth: a link to gone.pth, where there is no file$"):
        anp.weights.load(tmp_path / "link.pth")
