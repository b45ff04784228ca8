"""Every implementation is a parameter: a test that takes `backend` runs once for each, or says why it cannot.

With --gpu (make test-gpu) none may say so for want of a GPU.
"""

import os
import signal

# All threads for our kernels, one for NumPy's BLAS and for torch: pools that take turns wait for each other's cores,
# up to 25 ms at a time. (That they may share a process, in either order of import, is tested in test_backend.py.)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is first imported, which is below

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from nothing_skipped import NothingSkipped  # noqa: E402
from oracles import implementations  # noqa: E402

from alexnet_np.backend import BACKENDS, available_backends  # noqa: E402
from alexnet_np.kernels import choices  # noqa: E402

choices.use_measured([])  # the shipped table, whatever was measured on this machine

torch.set_num_threads(1)

# A shell that starts the tests in the background has Ctrl-C ignored, in them and in every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

backend = implementations()


def pytest_addoption(parser):
    parser.addoption("--gpu", action="store_true", help="fail if any test is skipped for want of a GPU")
    parser.addoption("--screenshots", metavar="FOLDER", help="where the explorer's tests leave theirs, to be looked at")


def pytest_configure(config):
    if config.getoption("--gpu"):
        for name, usable in available_backends().items():
            if usable is not True and BACKENDS[name] == "gpu":
                raise pytest.UsageError(f"--gpu: backend {name!r} is unavailable: {usable}")
        config.pluginmanager.register(NothingSkipped())


@pytest.fixture
def rng():
    """The same numbers for a test whichever others run, and wherever."""
    return np.random.default_rng(0)
