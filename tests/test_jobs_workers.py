"""Workers that carry chunks: in order, a few ahead, errors that arrive, kernels on one thread."""

import itertools
import threading
import time

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np import jobs, threads
from alexnet_np.jobs.workers import in_order


def test_results_come_in_order_whoever_is_slow():
    def slow_at_first(chunk):
        time.sleep(0.05 if chunk == 0 else 0)
        return chunk

    assert list(in_order(range(50), [slow_at_first] * 3)) == list(range(50))


def test_a_worker_never_has_two_chunks_and_only_a_few_are_ahead():
    busy, begun = [threading.Lock() for _ in range(2)], []

    def worker(i):
        def work(chunk):
            assert busy[i].acquire(blocking=False)
            time.sleep(0.001)
            busy[i].release()
            return chunk

        return work

    def chunks():
        for i in range(40):
            begun.append(i)
            yield i

    for done, chunk in enumerate(in_order(chunks(), [worker(0), worker(1)])):
        assert chunk == done
        assert len(begun) <= done + 6


def test_a_workers_error_arrives_and_stops_the_rest():
    seen = []

    def work(chunk):
        seen.append(chunk)
        if chunk == 3:
            raise ValueError("at three")
        return chunk

    results = in_order(range(1000), [work] * 2)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="at three"):
        next(results)
    assert len(seen) < 20


def test_kernels_run_on_one_thread_inside_alone():
    before = threads.get_num_threads()
    with threads.alone():
        assert threads.get_num_threads() == 1
        with threads.alone(), threads.parallel() as workers:
            assert workers == 1
        assert threads.get_num_threads() == 1
    assert threads.get_num_threads() == before


@pytest.mark.parametrize("preset", ["torchvision", "d2l"])
def test_a_row_does_not_depend_on_the_chunk_that_it_is_computed_in(preset, rng):
    """However a job is cut, on one machine or many, its rows are the same; dense layers are where it could differ."""
    model = anp.alexnet(preset, width=1 / 8, seed=0).eval()
    engine = jobs.open_engine(model, jobs.embedding_name(model), images=64, backend="numba")
    recipe, compute = engine.recipe, engine.workers[0]
    pixels = rng.integers(0, 256, (32, recipe.crop, recipe.crop, recipe.channels), np.uint8)
    whole = compute(pixels)
    for size in (1, 5, 24, 25):
        cut = [compute(pixels[first : first + size]) for first in range(0, 32, size)]
        np.testing.assert_array_equal(np.concatenate(cut), whole)
