"""A plan's call as one recorded program: the bits of a run step by step, for every size; what cannot be recorded."""

import threading

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np import threads
from alexnet_np.plan import cpu_recording

SIZE = 99


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("torchvision", width=1 / 8, num_classes=10, seed=0).eval()


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE), dtype=np.float32)


def by_step(plan, x):
    """What the plan gives without a recording."""
    program = plan._program
    program.records = False
    try:
        return plan(x)
    finally:
        program.records = True


@pytest.mark.parametrize("dense", ["float32", "int16"])
def test_the_same_bits_as_step_by_step(model, dense):
    plan = anp.compile(model, max_batch=7, size=SIZE, dense=dense)
    pixels = np.random.default_rng(1).integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)
    for count in (7, 1, 2, 3, 4, 5, 7):
        for x in (images(count), images(count, seed=1), pixels[:count]):
            np.testing.assert_array_equal(plan(x), by_step(plan, x))
    assert len(plan._program.recordings) == cpu_recording.MOST


def test_a_call_of_steps_that_are_kernels_is_recorded_and_does_not_hold_its_images(model):
    plan = anp.compile(model, max_batch=3, size=SIZE)
    x = images(3)
    plan(x)
    (recording,) = plan._program.recordings.values()
    assert len(recording.program) >= len(plan._program.steps)
    held = [array for kept in recording.program._kept if kept for array in kept if isinstance(array, np.ndarray)]
    assert held and not any(np.shares_memory(array, x) for array in held)


def test_values_that_are_not_ordinary_are_computed_step_by_step(model):
    plan = anp.compile(model, max_batch=4, size=SIZE)
    x = images(4)
    ordinary = plan(x)
    x[2, 1, 50, 50] = np.nan
    found = plan(x)
    np.testing.assert_array_equal(found, by_step(plan, x))
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(found[[0, 1, 3]], ordinary[[0, 1, 3]])
    np.testing.assert_array_equal(plan(images(4)), ordinary)


def test_refreshed_weights_are_used(model):
    own = anp.alexnet("torchvision", width=1 / 8, num_classes=10, seed=0).eval()
    plan, x = anp.compile(own, max_batch=2, size=SIZE), images(2)
    before = plan(x)
    for parameter in own.parameters():
        parameter.data *= np.float32(1.5)
    plan.refresh()
    after = plan(x)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, by_step(plan, x))


def test_outputs_between_the_steps_are_not_recorded(model):
    plan = anp.compile(model, max_batch=3, size=SIZE, outputs=["features.2", "classifier.6"])
    x = images(3)
    found = plan(x)
    assert not plan._program.recordings
    np.testing.assert_array_equal(found["classifier.6"], anp.compile(model, max_batch=3, size=SIZE)(x))


def test_a_recording_has_its_own_workspace(model):
    """What one thread has recorded another runs, while the first computes something else."""
    plan, other = anp.compile(model, max_batch=2, size=SIZE), anp.compile(model, max_batch=3, size=SIZE)
    x, y = images(2), images(3)
    expected, others = plan(x), other(y)
    wrong = []

    def work(run, given, wanted):
        for _ in range(20):
            if not np.array_equal(run(given), wanted):
                wrong.append(run)

    callers = [threading.Thread(target=work, args=each) for each in ((plan, x, expected), (other, y, others)) * 2]
    [caller.start() for caller in callers]
    [caller.join() for caller in callers]
    assert not wrong
    with threads.alone():
        np.testing.assert_array_equal(plan(x), expected)
