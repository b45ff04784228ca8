"""Every implementation is a parameter: a test that takes `backend` runs once for each, or says why it cannot."""

import numpy as np
import pytest
import torch
from oracles import implementations

# One thread for torch and all of them for the kernels: two OpenMP pools would only wait for each other's cores.
# (That both may run in one process, in either order of import, is tested in test_backend.py.)
torch.set_num_threads(1)

backend = implementations()


@pytest.fixture
def rng():
    """The same numbers for a test whichever others run, and wherever."""
    return np.random.default_rng(0)
