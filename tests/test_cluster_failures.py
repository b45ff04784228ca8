"""What dies under a job on Dask costs time and nothing else: worker, node, driver, each by SIGKILL, and Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import clusters
import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np import jobs
from alexnet_np.jobs import cluster
from alexnet_np.jobs.cluster import Cluster
from alexnet_np.jobs.listing import list_images

distributed = pytest.importorskip("distributed")
network = clusters.network
pytest.importorskip("pyarrow.parquet")
COUNT, BROKEN, PART = 60, 7, 4
PARTS = COUNT // PART


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("d2l", width=1 / 8, seed=0).eval()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    names = [f"{i:02d}.png" for i in range(COUNT)]
    return clusters.write_pictures(tmp_path_factory.mktemp("pictures"), names, names[BROKEN])


@pytest.fixture(scope="module")
def reference(network, pictures, tmp_path_factory):
    """What the one-machine job says: files and vectors."""
    out = tmp_path_factory.mktemp("one") / "vectors.npz"
    model = anp.alexnet(None, weights=str(network)).eval()
    done = jobs.embed(model, jobs.find([str(pictures)])[0], out, backend="numba")
    with np.load(out) as saved:
        return done.files, saved["embeddings"]


def holds(out: Path, reference) -> bool:
    """Every row once, in order, to the bit; and nothing else in the folder."""
    names, vectors = clusters.rows(out)
    alone = sorted(path.name for path in out.iterdir()) == [f"part-{i:06d}.parquet" for i in range(PARTS)]
    return names == reference[0] and np.array_equal(vectors, reference[1]) and alone


def when_parts_are_there(out: Path, count: int, then) -> threading.Thread:
    def wait():
        while len(list(out.glob("part-*.parquet"))) < count:
            time.sleep(0.002)
        then()

    watcher = threading.Thread(target=wait, daemon=True)
    watcher.start()
    return watcher


def test_a_killed_worker(model, pictures, reference, tmp_path):
    out = tmp_path / "parts"
    with distributed.LocalCluster(**clusters.OPTIONS) as started:
        victim = next(iter(started.workers.values())).process.pid
        watcher = when_parts_are_there(out, 1, lambda: os.kill(victim, signal.SIGKILL))
        job = cluster.describe("embed", model, str(out), backend="numba")
        done = cluster.run(job, model, list_images([str(pictures)]), PART, Cluster(started.scheduler_address))
        watcher.join(1)
        assert not watcher.is_alive()
    assert (done.images, done.computed, len(done.failures)) == (COUNT - 1, PARTS, 1)
    assert holds(out, reference)


@pytest.mark.slow
def test_a_killed_node(model, pictures, reference, tmp_path):
    """A machine that goes: its nanny and both its workers at one blow. Another machine does the rest."""
    file, out, environment = tmp_path / "s.json", tmp_path / "parts", {**os.environ, "ALEXNET_NP_NUM_THREADS": "1"}
    common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    workers = [*common, "--nthreads", "1", "--local-directory", str(tmp_path)]

    def started(what, *given):
        command = [sys.executable, "-m", f"distributed.cli.{what}", *given]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)

    running = [started("dask_scheduler", *common, "--port", "0")]
    try:
        node = started("dask_worker", *workers, "--nworkers", "2")
        running += [node, started("dask_worker", *workers, "--nworkers", "1")]
        while not file.exists():
            time.sleep(0.05)
        with distributed.Client(scheduler_file=str(file), timeout="60s") as client:
            client.wait_for_workers(3, timeout=120)
        watcher = when_parts_are_there(out, 2, lambda: os.killpg(node.pid, signal.SIGKILL))
        job = cluster.describe("embed", model, str(out), backend="numba")
        done = cluster.run(job, model, list_images([str(pictures)]), PART, Cluster(scheduler_file=file))
        watcher.join(1)
        assert node.wait(5) == -signal.SIGKILL
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert (done.images, done.computed, len(done.failures)) == (COUNT - 1, PARTS, 1)
    assert holds(out, reference)


@pytest.fixture
def command(pictures, network, tmp_path):
    given = ["--weights", str(network), "--backend", "numba", "--out", str(tmp_path / "parts"), "--engine", "dask"]
    return [sys.executable, "-m", "alexnet_np", "embed", str(pictures), *given, "--part-size", str(PART), "--json"]


def goes_on(command, out, reference) -> int:
    """Run it again; gives how many parts were there."""
    again = subprocess.run(command, capture_output=True)
    assert again.returncode == 1, again.stderr  # one picture is none
    said = json.loads(again.stdout)
    assert (said["parts"], said["images"], len(said["failures"])) == (PARTS, COUNT - 1, 1)
    assert holds(out, reference)
    return said["parts"] - said["computed"]


@pytest.mark.slow
def test_a_killed_driver_and_the_one_that_went_on_killed_too(command, reference, tmp_path):
    out = tmp_path / "parts"
    for more in (2, 3):
        there = len(list(out.glob("part-*.parquet")))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
            when_parts_are_there(out, there + more, driver.kill).join(300)
        assert driver.returncode == -signal.SIGKILL
    there = goes_on(command, out, reference)
    assert 5 <= there < PARTS


@pytest.mark.slow
def test_ctrl_c(command, reference, tmp_path):
    """To the whole group of processes, as a terminal sends it."""
    out = tmp_path / "parts"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(command, **streams) as driver:
        when_parts_are_there(out, 2, lambda: os.killpg(driver.pid, signal.SIGINT)).join(300)
        printed, said = driver.communicate(timeout=60)
    assert (driver.returncode, printed) == (130, b"")
    kept = len(list(out.glob("part-*.parquet")))
    assert 2 <= kept < PARTS
    assert said.decode() == f"alexnet: stopped: {kept} parts stand in {out}; the same command goes on\n"
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith("part-")) == []
    assert goes_on(command, out, reference) == kept
    shutil.rmtree(out)
