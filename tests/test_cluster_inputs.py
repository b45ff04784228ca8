"""Where a job's images come from: lists, pages of links over http, and stores of objects, each on this machine."""

from __future__ import annotations

import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import clusters
import numpy as np
import pytest
from command_line import fails, run, run_json
from oracles import refused

import alexnet_np as anp
from alexnet_np.identity import recipe_of
from alexnet_np.jobs import store
from alexnet_np.jobs.labelled import list_labelled, list_named
from alexnet_np.jobs.listing import file_system, list_images, read_from, read_list

two_workers = clusters.two_workers
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
parquet = pytest.importorskip("pyarrow.parquet")
NAMES = ["a.png", "b c.png", "100%.png", "ü.png", "emu/d.png", "emu/e#1.png"]
CARRIED = "--weights", "FASHION_MNIST_V1", "--backend", "numpy"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Names as people give them, a hidden one, and a file that is no picture by its name."""
    folder = clusters.write_pictures(tmp_path_factory.mktemp("pictures"), (*NAMES, ".thumbnails/a.png"))
    (folder / "notes.txt").write_text("no picture")
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *given):
        pass


class Nginx(Quiet):
    """Answers a folder with the page that nginx's autoindex writes."""

    def list_directory(self, path):
        from io import BytesIO
        from pathlib import Path

        lines = [f"<html>\r\n<head><title>Index of {self.path}</title></head>\r\n<body>"]
        lines.append(f'<h1>Index of {self.path}</h1><hr><pre><a href="../">../</a>')
        for entry in sorted(Path(path).iterdir()):
            name = entry.name + ("/" if entry.is_dir() else "")
            size = "-" if entry.is_dir() else str(entry.stat().st_size)
            lines.append(f'<a href="{quote(name)}">{name}</a>{" " * 30}26-Nov-2026 03:00{size:>20}')
        page = "\r\n".join([*lines, "</pre><hr></body>\r\n</html>\r\n"]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        return BytesIO(page)


@pytest.fixture(params=[Quiet, Nginx], ids=["http.server", "nginx"])
def site(request, pictures):
    """The pictures' folder on this machine's loopback: its address."""
    pytest.importorskip("aiohttp")

    def handler(*given):
        return request.param(*given, directory=str(pictures))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pages_of_links_are_listed_and_read(site, pictures):
    model = anp.alexnet("d2l", width=1 / 8, seed=0)
    for address in (site, f"{site}/"):
        listed = list_images([address])
        assert listed.files == sorted(f"{site}/{quote(name)}" for name in NAMES)
        assert not listed.failures
    for name in NAMES:
        here = read_from(str(pictures), name, recipe_of(model))
        np.testing.assert_array_equal(read_from(".", f"{site}/{quote(name)}", recipe_of(model)), here)
    one = list_images([f"{site}/a.png", f"{site}/none.png", f"{site}/notes.txt", "http://127.0.0.1:9/a.png"])
    assert one.files == [f"{site}/a.png", f"{site}/notes.txt"]  # what is named is read, whatever its name
    assert one.failures[0].error == "no such file or folder" and "cannot be reached" in one.failures[1].error
    labelled, classes = list_labelled(site, None)
    assert classes == ["emu"] and [file.rsplit("/", 1)[1] for file in labelled.files] == ["d.png", "e%231.png"]


def test_a_job_over_http_has_the_rows_of_its_files(site, pictures, two_workers, tmp_path):
    there = "--engine", "dask", "--scheduler", two_workers.scheduler, "--out", tmp_path / "parts", "--part-size", 4
    said = run_json("classify", site, *CARRIED, *there)
    assert (said["images"], said["parts"]) == (6, 2)
    labels = {row["file"]: row["labels"] for row in parquet.read_table(tmp_path / "parts").to_pylist()}
    wanted = run_json("classify", pictures, *CARRIED)["results"]
    assert len(wanted) == 6
    for each in wanted:
        below = each["file"].removeprefix(f"{pictures}/")
        assert labels[f"{site}/{quote(below)}"] == [guess["label"] for guess in each["top"]]


def test_lists_name_files_one_by_one(pictures, two_workers, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures)
    lines, table = tmp_path / "list.txt", tmp_path / "list.parquet"
    lines.write_text("b c.png\n\nemu/d.png\r\nnone.png\nemu/e#1.png\n", encoding="utf-8")
    names = ["b c.png", "emu/d.png", "none.png", "emu/e#1.png"]
    assert read_list(str(lines)) == names
    parquet.write_table(pyarrow.table({"number": [1, 2], "file": names[:2]}), table)
    assert read_list(str(table)) == names[:2]
    there = "--engine", "dask", "--scheduler", two_workers.scheduler, "--out", tmp_path / "parts", "--part-size", 2
    found = run_json("classify", "a.png", "--files-from", lines, *CARRIED, *there, code=1)
    assert (found["images"], found["parts"]) == (4, 3)
    assert found["failures"] == [{"file": "none.png", "error": "no such file"}]
    here = run_json("classify", "a.png", "--files-from", lines, *CARRIED, code=1)
    assert [each["file"] for each in here["results"]] == ["a.png", "b c.png", "emu/d.png", "emu/e#1.png"]
    assert here["failures"] == found["failures"]
    assert parquet.read_table(tmp_path / "parts")["file"].to_pylist() == [each["file"] for each in here["results"]]
    piped = run("classify", "--files-from", "-", "--top", 1, *CARRIED, input="a.png\nü.png\n".encode())
    assert piped.stdout.count("\n") == 2
    again = run_json("classify", "--files-from", tmp_path / "parts" / "part-000000.parquet", *CARRIED)
    assert [each["file"] for each in again["results"]] == ["a.png", "b c.png"]  # a part is a list too


def test_the_folders_of_a_list_are_its_classes():
    listed, classes = list_named(["x/dog/1.jpg", "memory://y/cat/2.jpg", "z/dog/3.jpg"], None)
    assert (classes, listed.targets) == (["cat", "dog"], [1, 0, 1])
    assert listed.files == ["x/dog/1.jpg", "memory://y/cat/2.jpg", "z/dog/3.jpg"]  # in its own order
    with refused(anp.DataError, "1.jpg lies in no folder"):
        list_named(["1.jpg"], None)
    with refused(anp.DataError, "dog is not one of the 1 classes expected: cat"):
        list_named(["x/dog/1.jpg"], ["cat"])


def test_wrong_lists_are_one_line(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "no.parquet").write_bytes(b"no table")
    parquet.write_table(pyarrow.table({"path": ["a.png"]}), tmp_path / "other.parquet")
    for name, said in (
        ("nowhere.txt", "a list that cannot be read: no such file"),
        ("empty.txt", "an empty list"),
        ("no.parquet", "no Parquet file with a column called file"),
        ("other.parquet", "no Parquet file with a column called file"),
    ):
        assert said in fails("classify", "--files-from", tmp_path / name, *CARRIED)
    result = run("classify", *CARRIED, code=2)
    assert "no IMAGE: name files, folders, or a list by --files-from" in result.stderr


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("gs://bucket/x", "gcsfs", "gs"), ("s3://bucket/x", "s3fs", "s3"), ("https://x.org/x", "aiohttp", "dask")],
)
def test_a_missing_extra_is_one_line(url, package, extra, monkeypatch):
    for kind in ("gs", "s3", "https"):  # where a test before this one has used them
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, kind, raising=False)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with refused(anp.MissingPackageError, rf"{url}: needs the package {package}: pip install 'alexnet-np\[{extra}\]'"):
        file_system(url)


def test_an_address_of_no_kind_is_one_line(pictures, tmp_path):
    said = fails("embed", "foo://x", *CARRIED, "--engine", "dask", "--out", tmp_path / "parts")
    assert said.startswith("foo://x: no kind of address is called foo://")
    said = fails("embed", pictures, *CARRIED, "--engine", "dask", "--out", "foo://x")
    assert said.startswith("foo://x")


@pytest.mark.slow
def test_from_gs_into_gs(pictures, monkeypatch, two_workers):
    """Against an emulator of Google's store; its newer way, over gRPC, that has none is switched off."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    gcsfs = pytest.importorskip("gcsfs")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.server_address[1]}")
        gcsfs.GCSFileSystem.clear_instance_cache()
        there = gcsfs.GCSFileSystem(token="anon")
        for name in NAMES:
            there.pipe_file(f"bucket/pictures/{name}", (pictures / name).read_bytes())
        out = "gs://bucket/parts"
        said = run_json("classify", "gs://bucket/pictures", *CARRIED, "--engine", "dask", "--out", out)
        assert (said["images"], said["failures"]) == (6, [])
        assert store.names_in(out) == ["part-000000.parquet"]
        table = store.read(out, "part-000000.parquet", ["file"])
        assert table["file"].to_pylist() == sorted(f"gs://bucket/pictures/{name}" for name in NAMES)
        assert run_json("classify", "gs://bucket/pictures", *CARRIED, "--engine", "dask", "--out", out)["computed"] == 0
    finally:
        server.stop()
