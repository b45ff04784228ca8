"""A cluster of two workers on this machine, for the tests of one file."""

from __future__ import annotations

import pytest

from alexnet_np.jobs.cluster import Cluster

distributed = pytest.importorskip("distributed")
OPTIONS = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}


@pytest.fixture(scope="module")
def two_workers():
    """Started once: its address."""
    with distributed.LocalCluster(**OPTIONS) as started:
        yield Cluster(started.scheduler_address)
