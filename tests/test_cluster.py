"""Jobs on Dask: the same rows as on one machine, whole after kills, and only what is missing done again."""

from __future__ import annotations

import json
import os
import shutil

import clusters
import numpy as np
import pytest
from oracles import refused
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np import jobs
from alexnet_np.cli.app import app
from alexnet_np.identity import recipe_of
from alexnet_np.jobs import cluster, store
from alexnet_np.jobs.cluster import Cluster
from alexnet_np.jobs.listing import list_images, read_from

distributed = pytest.importorskip("distributed")
two_workers, rows = clusters.two_workers, clusters.rows
parquet = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")
COUNT, BROKEN, PART = 30, 7, 4


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("d2l", width=1 / 8, seed=0).eval()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 30 small pictures, one of which is none."""
    names = [f"{i:02d}.png" for i in range(COUNT)]
    return clusters.write_pictures(tmp_path_factory.mktemp("pictures"), names, names[BROKEN])


def run(model, pictures, out, where, **options):
    job = cluster.describe("embed", model, str(out), backend="numba", **options)
    return cluster.run(job, model, list_images([str(pictures)]), PART, where)


@pytest.fixture(scope="module")
def reference(model, pictures, tmp_path_factory):
    """What the one-machine job says: files and vectors."""
    out = tmp_path_factory.mktemp("one") / "vectors.npz"
    done = jobs.embed(model, jobs.find([str(pictures)])[0], out, backend="numba")
    with np.load(out) as saved:
        return done.files, saved["embeddings"]


def test_the_same_rows_as_on_one_machine(model, pictures, two_workers, reference, tmp_path):
    done = run(model, pictures, tmp_path / "parts", two_workers)
    assert (done.parts, done.computed, done.images) == (8, 8, COUNT - 1)
    assert [f.file for f in done.failures] == [str(pictures / f"{BROKEN:02d}.png")]
    assert "not an image" in done.failures[0].error
    names, vectors = rows(tmp_path / "parts")
    assert names == reference[0]
    np.testing.assert_array_equal(vectors, reference[1])
    assert sorted(os.listdir(tmp_path / "parts")) == [f"part-{i:06d}.parquet" for i in range(8)]  # noqa: PTH208
    footer = store.about(str(tmp_path / "parts"), "part-000001.parquet")
    assert footer["version"] == anp.__version__ and len(footer["failures"]) == 1 and footer["files"] == PART


def test_numbers_have_no_dictionary(model, pictures, two_workers, tmp_path):
    run(model, pictures, tmp_path / "parts", two_workers)
    group = parquet.read_metadata(tmp_path / "parts" / "part-000000.parquet").row_group(0)
    columns = {group.column(i).path_in_schema.split(".")[0]: group.column(i) for i in range(2)}
    assert (columns["file"].has_dictionary_page, columns["embedding"].has_dictionary_page) == (True, False)


def test_a_local_cluster_is_calm_but_for_what_the_user_says(monkeypatch):
    from dask import config

    name = "distributed.worker.profile.interval"
    before = config.get(name)
    with cluster.calm():
        assert {each: config.get(each) for each in cluster.CALM} == cluster.CALM
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PROFILE__INTERVAL", "7ms")
    with cluster.calm():
        assert config.get(name) == before != cluster.CALM[name]
    assert config.get(name) == before


def test_a_second_run_does_what_is_missing_and_nothing_else(model, pictures, two_workers, reference, tmp_path):
    folder, out = tmp_path / "pictures", tmp_path / "parts"
    shutil.copytree(pictures, folder)
    run(model, folder, out, two_workers)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run(model, folder, out, Cluster("tcp://127.0.0.1:9")).computed == 0  # nobody is asked
    (out / "part-000002.parquet").unlink()
    (out / "part-000003.parquet").write_bytes(b"broken")
    shutil.copy(folder / "00.png", folder / "20.png")  # in part 5
    assert run(model, folder, out, two_workers).computed == 3
    changed = {path.name for path in out.iterdir() if path.stat().st_mtime_ns != stamps[path.name]}
    assert changed == {f"part-00000{i}.parquet" for i in (2, 3, 5)}
    for i in range(18, COUNT):
        (folder / f"{i:02d}.png").unlink()
    done = run(model, folder, out, two_workers)  # part 4 is shorter now, those beyond are gone
    assert (done.parts, done.computed, done.images) == (5, 1, 17) and len(list(out.iterdir())) == 5
    nothing = cluster.describe("embed", model, str(out))
    assert cluster.run(nothing, model, list_images([str(tmp_path / "mistyped")]), PART, two_workers).parts == 0
    assert len(list(out.iterdir())) == 5  # and they are still there
    other = anp.alexnet("d2l", width=1 / 8, seed=1).eval()
    assert run(other, folder, out, two_workers).computed == 5


def test_no_more_parts_are_in_flight_than_the_workers_need(model, pictures, two_workers, tmp_path, monkeypatch):
    """So the driver of a million pictures holds their names, and no more."""
    flying = most = 0
    submit, release = distributed.Client.submit, distributed.Future.release

    def counted_submit(self, *given, **options):
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        return submit(self, *given, **options)

    def counted_release(self):
        nonlocal flying
        flying -= 1
        return release(self)

    monkeypatch.setattr(distributed.Client, "submit", counted_submit)
    monkeypatch.setattr(distributed.Future, "release", counted_release)
    monkeypatch.setattr(cluster, "AHEAD", 1)
    assert run(model, pictures, tmp_path / "parts", two_workers).computed == 8
    assert most == 2


def test_addresses_are_read_and_listed(model, pictures):
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/bucket/{path.name}": path.read_bytes() for path in pictures.iterdir()})
    memory.pipe("/bucket/notes.txt", b"no picture")
    listed = list_images(["memory://bucket", "memory://nowhere", str(pictures / "00.png")])
    assert listed.files == [*(f"memory:///bucket/{i:02d}.png" for i in range(COUNT)), str(pictures / "00.png")]
    assert [(f.file, f.error) for f in listed.failures] == [("memory://nowhere", "no such file or folder")]
    recipe = recipe_of(model)
    here = read_from(str(pictures), "03.png", recipe)
    np.testing.assert_array_equal(read_from(".", "memory://bucket/03.png", recipe), here)
    with refused(anp.ImageError, "memory://bucket/none.png: no such file"):
        read_from(".", "memory://bucket/none.png", recipe)
    with refused(anp.ImageError, r"memory://bucket/07.png: not an image"):
        read_from(".", "memory://bucket/07.png", recipe)


@pytest.fixture
def bucket(monkeypatch):
    """An S3 server on this machine's loopback, and a bucket in it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    system = pytest.importorskip("s3fs").S3FileSystem(skip_instance_cache=True)
    system.mkdir("bucket")
    yield system
    server.stop()


@pytest.mark.slow
def test_from_s3_into_s3(model, pictures, reference, bucket, tmp_path):
    bucket.put(str(pictures) + "/", "bucket/pictures/", recursive=True)
    job = cluster.describe("embed", model, "s3://bucket/parts", backend="numba")
    listed = list_images(["s3://bucket/pictures"])
    assert len(listed.files) == COUNT
    where = Cluster(workers=2)  # whose processes inherit the server's address
    done = cluster.run(job, model, listed, PART, where)
    assert (done.computed, done.images, len(done.failures)) == (8, COUNT - 1, 1)
    assert cluster.run(job, model, listed, PART, where).computed == 0
    bucket.invalidate_cache()
    assert [name.split("/")[-1] for name in sorted(bucket.ls("bucket/parts"))] == [
        f"part-{i:06d}.parquet" for i in range(8)
    ]
    bucket.get("bucket/parts/", str(tmp_path / "parts") + "/", recursive=True)
    np.testing.assert_array_equal(rows(tmp_path / "parts")[1], reference[1])


def alexnet(*given):
    return CliRunner().invoke(app, [*map(str, given)])


def test_the_command_line(pictures, two_workers, tmp_path):
    network = ("--weights", "FASHION_MNIST_V1", "--backend", "numpy")
    out = ("--out", tmp_path / "labels", "--part-size", 8)
    there = ("--engine", "dask", "--scheduler", two_workers.scheduler)
    result = alexnet("classify", pictures, "--top", 2, *network, *out, *there, "--json")
    assert result.exit_code == 1  # one picture is none
    said = json.loads(result.stdout)
    assert (said["parts"], said["computed"], said["images"]) == (4, 4, COUNT - 1)
    assert [failure["file"] for failure in said["failures"]] == [str(pictures / "07.png")]
    local = json.loads(alexnet("classify", pictures, "--top", 2, *network, "--json").stdout)
    table = parquet.read_table(tmp_path / "labels").to_pylist()
    assert [(row["file"], row["labels"]) for row in table] == [
        (each["file"], [guess["label"] for guess in each["top"]]) for each in local["results"]
    ]
    again = alexnet("classify", pictures, "--top", 2, *network, *out, *there)
    assert "29 images in 4 parts, 0 of them computed now" in again.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--engine", "spark", "--out", "x"], "--engine is local or dask, got 'spark'"),
        (["--scheduler", "tcp://127.0.0.1:1"], "--scheduler and --scheduler-file are for --engine dask"),
        (["--engine", "dask"], "name it, --out parts/"),
        (["--out", "labels"], "--out is for --engine dask"),
        (
            ["--engine", "dask", "--out", "{tmp}", "--scheduler", "x", "--scheduler-file", "y"],
            "give --scheduler or --scheduler-file, not both",
        ),
        (["--engine", "dask", "--out", "{tmp}", "--scheduler-file", "none.json"], "none.json: no such file"),
    ],
)
def test_mistakes_are_one_line(given, said, pictures, tmp_path):
    given = [str(tmp_path / "parts") if each == "{tmp}" else each for each in given]
    result = alexnet("classify", pictures, "--weights", "FASHION_MNIST_V1", *given)
    assert result.exit_code == 1 and said in result.output and result.output.count("\n") == 1, result.output
