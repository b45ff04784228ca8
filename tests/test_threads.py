"""One setting for the kernels' threads and BLAS's; results that do not depend on it; the BLAS by name."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np import threads
from alexnet_np.plan import compile


@pytest.fixture
def restored():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def run(code, **variables):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, **variables}
    )
    return done.stdout.strip(), done.stderr


def test_the_setting_reaches_kernels_and_blas(restored):
    for count in range(1, threads.limit() + 1):
        threads.set_num_threads(count)
        with threads.parallel() as workers:
            assert workers == count == threads.workers() == threads.get_num_threads()
        assert all(pool.num_threads == count for pool in threads.numpys_blas())


def test_the_setting_holds_in_threads_that_start_later(restored):
    threads.set_num_threads(1)
    seen = []

    def work():
        with threads.parallel() as workers:
            seen.append(workers)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [1]


@pytest.mark.parametrize("count", [0, -1, 10**6, 1.5, True, "2"])
def test_impossible_counts_are_named(count):
    with pytest.raises(anp.ArgumentError, match="must be from 1 to|must be an int"):
        threads.set_num_threads(count)


def test_the_environment_sets_the_default():
    code = "from alexnet_np import threads; print(threads.get_num_threads())"
    assert run(code, ALEXNET_NP_NUM_THREADS="1")[0] == "1"
    for wrong in ("0", "many"):
        assert "ALEXNET_NP_NUM_THREADS must be a number from 1" in run(code, ALEXNET_NP_NUM_THREADS=wrong)[1]


def test_results_do_not_depend_on_the_number_of_threads(restored):
    model = anp.alexnet(width=0.25, num_classes=10, seed=0, backend="numba").eval()
    x = np.random.default_rng(0).standard_normal((3, 3, 224, 224), dtype=np.float32)
    results = []
    for count in {1, threads.limit()}:
        threads.set_num_threads(count)
        model.zero_grad()
        logits = model(x)
        model.backward(np.ones_like(logits), input_grad=False)
        results.append([compile(model, max_batch=3)(x), logits, model.features[3].weight.grad.copy()])
    for a, b in zip(results[0], results[-1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_blas_alone_and_then_as_it_was(restored):
    threads.set_num_threads(threads.limit())
    with pytest.raises(KeyError), threads.blas_alone():
        assert threads.numpys_blas() and all(pool.num_threads == 1 for pool in threads.numpys_blas())
        assert threads.get_num_threads() == threads.limit()
        raise KeyError
    assert all(pool.num_threads == threads.limit() for pool in threads.numpys_blas())


def test_the_blas_is_named():
    build = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    assert threads.describe_blas().startswith(f"{build['name']} {build['version']}")


def test_scratch_belongs_to_its_thread():
    here = threads.scratch(100)
    there = []
    thread = threading.Thread(target=lambda: there.append(threads.scratch(100)))
    thread.start()
    thread.join()
    assert here.dtype == np.float32 and here.size >= 100
    assert not np.shares_memory(here, there[0]) and threads.scratch(50) is here
