"""Every implementation is a parameter: a test that takes `backend` runs once for each, or says why it cannot."""

import pytest
import torch

from alexnet_np.backend import BACKENDS, available_backends

# One thread for torch and all of them for the kernels: two OpenMP pools would only wait for each other's cores.
# (That both may run in one process, in either order of import, is tested in test_backend.py.)
torch.set_num_threads(1)


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.gpu) if BACKENDS[name] == "gpu" else name for name in BACKENDS]
)
def backend(request):
    usable = available_backends()[request.param]
    if usable is not True:
        pytest.skip(usable)
    return request.param
