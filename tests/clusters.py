"""A cluster of two workers on this machine, pictures for it, and what it wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet_np as anp
from alexnet_np.jobs.cluster import Cluster

distributed = pytest.importorskip("distributed")
parquet = pytest.importorskip("pyarrow.parquet")
OPTIONS = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}


@pytest.fixture(scope="module")
def two_workers():
    """Started once: its address."""
    with distributed.LocalCluster(**OPTIONS) as started:
        yield Cluster(started.scheduler_address)


@pytest.fixture(scope="module")
def network(model, tmp_path_factory):
    """The weights of a file's own `model`, in a file."""
    file = tmp_path_factory.mktemp("network") / "net.safetensors"
    anp.weights.write(file, model)
    return file


def write_pictures(folder: Path, names: Iterable[str], broken: str | None = None) -> Path:
    """Small pictures of noise below a folder, the `broken` one of which is none."""
    draw = np.random.default_rng(0).integers
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    if broken is not None:
        (folder / broken).write_bytes(b"no picture")
    return folder


def rows(out: Path) -> tuple[list[str], np.ndarray]:
    """Every file of a folder of parts, and the vectors, in the order of the parts."""
    tables = [parquet.read_table(path) for path in sorted(out.glob("part-*.parquet"))]
    names = [name for table in tables for name in table["file"].to_pylist()]
    return names, np.concatenate([np.stack(table["embedding"].to_pylist()) for table in tables if len(table)])
