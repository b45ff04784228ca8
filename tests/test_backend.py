import subprocess
import sys
import threading
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from oracles import refused

from alexnet_np import ops
from alexnet_np.backend import (
    BACKENDS,
    IMPLEMENTATIONS,
    available_backends,
    check_backend,
    current_backend,
    implementation,
    use_backend,
)
from alexnet_np.device import as_array
from alexnet_np.errors import BackendError, DtypeError

x = np.ones((1, 1, 4, 4), "float32")


def test_every_backend_is_available_or_says_why_in_one_line():
    backends = available_backends()
    assert list(backends) == list(BACKENDS) and backends["numpy"] is True
    for reason in backends.values():
        assert reason is True or (isinstance(reason, str) and reason and "\n" not in reason)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_can_be_used_exactly_if_it_is_available(name):
    reason = available_backends()[name]
    if reason is True:
        assert check_backend(name) == name
    else:
        with refused(BackendError, f"backend '{name}' is unavailable: .*; usable here: numpy"):
            check_backend(name)


def test_unknown_backend():
    with refused(BackendError, "unknown backend 'jax': choose one of numpy, numba, cupy, cuda"), use_backend("jax"):
        pass


def test_the_choice_nests_and_ends_with_its_block():
    assert current_backend(x) == "numpy"
    with use_backend("numba"):
        assert current_backend(x) == "numba"
        with use_backend(None):
            assert current_backend(x) == "numpy"
        assert current_backend(x) == "numba"
    with pytest.raises(KeyError), use_backend("numba"):
        raise KeyError
    assert current_backend(x) == "numpy"


def test_the_choice_is_each_threads_own():
    seen = []
    with use_backend("numba"):
        thread = threading.Thread(target=lambda: seen.append(current_backend(x)))
        thread.start()
        thread.join()
    assert seen == ["numpy"]


def test_a_gpu_backend_refuses_a_cpu_array(monkeypatch):
    monkeypatch.setattr("alexnet_np.backend.available_backends", lambda: dict.fromkeys(BACKENDS, True))
    monkeypatch.setattr("alexnet_np.backend._why_unavailable", lambda name: None)
    with use_backend("cupy"), refused(BackendError, "backend 'cupy' takes CuPy arrays, got NumPy"):
        ops.relu.forward(x)


def test_an_op_without_an_implementation_names_those_it_has(monkeypatch):
    monkeypatch.setattr("alexnet_np.backend._why_unavailable", lambda name: None)
    monkeypatch.setitem(IMPLEMENTATIONS, "relu", {"numpy": "alexnet_np.ops.relu"})
    with use_backend("numba"), refused(BackendError, "relu has no 'numba' implementation; choose one of numpy"):
        ops.relu.forward(x)


def test_every_op_has_an_array_version_and_it_is_its_own_module():
    for name, modules in IMPLEMENTATIONS.items():
        assert modules["numpy"] == modules["cupy"] == f"alexnet_np.ops.{name}"


@pytest.mark.parametrize(
    ("op", "module"),
    [(op, m) for op, modules in IMPLEMENTATIONS.items() for m in sorted({modules["numpy"], modules["numba"]})],
)
def test_every_cpu_implementation_has_a_forward_and_a_backward(op, module):
    others = {"dropout": ("compute", "draw_mask"), "sgd": ("compute",)}  # its own adjoint; not differentiated
    functions = others.get(op, ("compute", "gradients"))
    assert all(callable(getattr(import_module(module), function)) for function in functions)


def test_dispatch_follows_the_choice():
    assert implementation("conv2d", x) is ops.conv2d
    with use_backend("numba"):
        assert implementation("conv2d", x).__name__ == IMPLEMENTATIONS["conv2d"]["numba"]


def test_an_array_passes_through_and_a_lender_is_not_copied():
    assert as_array(x, "x") is x
    lender = SimpleNamespace(__dlpack__=x.__dlpack__, __dlpack_device__=x.__dlpack_device__)
    assert np.shares_memory(as_array(lender, "x"), x)


def test_a_lender_that_fails_is_quoted_on_one_line():
    def fails(**_):
        raise RuntimeError("first line\nsecond line")

    lender = SimpleNamespace(__dlpack__=fails, __dlpack_device__=lambda: (1, 0))
    with refused(DtypeError, "x: a SimpleNamespace that cannot be read as an array: first line second line"):
        as_array(lender, "x")


TOGETHER = """
import sys, threading
if sys.argv[1] == "torch":
    import torch
import numpy as np
from alexnet_np import ops
from alexnet_np.backend import use_backend
x = np.random.default_rng(0).standard_normal((4, 16, 27, 27)).astype("float32")
w = np.random.default_rng(1).standard_normal((16, 16, 3, 3)).astype("float32")
with use_backend("numba"):
    y, cache = ops.conv2d.forward(x, w)
    dx = ops.conv2d.backward(y, cache)[0]
import torch
torch.set_num_threads(2)
same = []
def ours():
    with use_backend("numba"):
        for _ in range(10):
            y2, cache = ops.conv2d.forward(x, w)
            same.append(np.array_equal(y2, y) and np.array_equal(ops.conv2d.backward(y2, cache)[0], dx))
def torchs():
    for _ in range(10):
        tx = torch.from_numpy(x).requires_grad_()
        out = torch.nn.functional.conv2d(tx, torch.from_numpy(w))
        out.backward(out.detach())
        same.append(bool(np.allclose(tx.grad.numpy(), dx, atol=1e-2)))
threads = [threading.Thread(target=f) for f in (ours, torchs, ours, torchs)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(same) == 40 and all(same), same
"""


@pytest.mark.parametrize("first", ["torch", "numba"])
def test_torch_and_the_kernels_share_a_process(first):
    """Torch's threads and ours at work from several threads at once, whichever came first; the same bits every run."""
    subprocess.run([sys.executable, "-c", TOGETHER, first], check=True, timeout=120)
