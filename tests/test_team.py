"""The team of threads: every block once, the same bits whoever takes it, and nobody waits for one who is not there."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from numba import types

from alexnet_np import threads
from alexnet_np.errors import BackendError
from alexnet_np.kernels.cpu import placement, team
from alexnet_np.kernels.cpu.blocks import block_kernel, recording

nap = types.ExternalFunction("usleep", types.int32(types.uint32))


@block_kernel
def count_blocks(block, worker, times, takers, slow, microseconds):
    """times[block] += 1; the thread `slow` takes its time."""
    if worker == slow:
        nap(microseconds)
    times[block] += 1
    takers[block] = worker


@block_kernel
def add_up(block, worker, x, y):
    """y[block] = the sum of x[:block + 1], in float32."""
    total = np.float32(0)
    for i in range(block + 1):
        total += x[i]
    y[block] = total


@block_kernel
def fail_at(block, _, last):
    if block == last:
        raise ValueError("no block")


@pytest.fixture
def two():
    if threads.limit() < 2:
        pytest.skip("one core")
    before = threads.get_num_threads()
    threads.set_num_threads(2)
    yield
    threads.set_num_threads(before)


def test_every_block_runs_once(two):
    for blocks in [1, 2, 3, 7, 100, 1000] * 20:
        times, takers = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)
        count_blocks[blocks](times, takers, -1, 0)
        assert (times == 1).all() and set(takers) <= {0, 1}


def test_no_blocks_are_no_work():
    count_blocks[0](np.zeros(0, np.int64), np.zeros(0, np.int64), -1, 0)


@pytest.mark.parametrize("slow", [0, 1])
def test_a_slow_thread_costs_its_own_blocks_only(two, slow):
    """It takes 20 ms a block; were the blocks cut in halves, it would have 50 of them: a second."""
    times, takers = np.zeros(100, np.int64), np.zeros(100, np.int64)
    count_blocks[100](times, takers, -1, 0)  # compiled, and the threads there
    best = 1.0
    for _ in range(5):
        times[:] = 0
        start = time.perf_counter()
        count_blocks[100](times, takers, slow, 20_000)
        best = min(best, time.perf_counter() - start)
        assert (times == 1).all()
    assert best < 0.6  # of the first blocks it takes a share of 100/8


def test_one_who_does_not_come_is_not_waited_for(two, monkeypatch):
    """Its thread has not even started."""
    alone = team.Team()
    monkeypatch.setattr(alone, "start", lambda active: None)
    monkeypatch.setattr(team, "_team", alone)
    times, takers = np.zeros(50, np.int64), np.ones(50, np.int64)
    count_blocks[50](times, takers, -1, 0)
    assert (times == 1).all() and not takers.any()


@pytest.mark.parametrize("slow", [-1, 0, 1])
def test_recorded_steps_run_in_their_order(two, slow):
    x = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    sums = [np.zeros_like(x) for _ in range(4)]
    times, takers = np.zeros(5, np.int64), np.zeros(5, np.int64)
    with recording() as program:
        add_up[len(x)](x, sums[0])
        for a, b in zip(sums[:-1], sums[1:], strict=True):
            count_blocks[5](times, takers, slow, 500)
            add_up[len(x)](a, b)
    assert not sums[0].any()
    expected = x
    for _ in range(4):
        expected = np.cumsum(expected, dtype=np.float32)
    for _ in range(10):
        sums[-1][:] = 0
        program.run()
        np.testing.assert_array_equal(sums[-1], expected)
    assert (times == 30).all()
    x += 1  # the arrays, not their values, are recorded
    program.run()
    assert not np.array_equal(sums[-1], expected)


def test_several_callers_at_once(two):
    wrong = []

    def work(seed):
        x = np.random.default_rng(seed).standard_normal(200).astype(np.float32)
        y = np.zeros_like(x)
        for _ in range(100):
            y[:] = 0
            add_up[len(x)](x, y)
            if not np.array_equal(y, np.cumsum(x, dtype=np.float32)):
                wrong.append(seed)

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    [caller.start() for caller in callers]
    [caller.join() for caller in callers]
    assert not wrong


def test_a_block_that_fails_is_an_error_and_the_team_goes_on(two):
    for blocks in (1, 64):
        with pytest.raises(BackendError, match="a kernel failed"):
            fail_at[blocks](blocks - 1)
    test_every_block_runs_once(two)


BITS = """
import numpy as np, alexnet_np as anp, alexnet_np.layers
from alexnet_np import threads
model = anp.alexnet(width=1 / 8, num_classes=10, seed=0, backend="numba")
x = np.random.default_rng(0).standard_normal((5, 3, 224, 224), dtype="f")
for layer in model.classifier:
    if isinstance(layer, anp.layers.Dropout):
        layer.p = 0.0
found = {}
for count in (1, 2, 3, 5):
    threads.set_num_threads(count)
    plan = anp.compile(model.eval(), max_batch=5)
    optimizer = anp.SGD(model.named_parameters(), lr=0.0)
    step = anp.compile_training(model, optimizer, batch_size=5)
    for _ in range(3):
        results = [plan(x), plan(x[:1]), step(x, np.arange(5))]
        model.zero_grad()
        logits = model(x)
        model.backward(np.ones_like(logits), input_grad=False)
        results += [logits, *(p.grad for p in model.parameters())]
        for i, result in enumerate(results):
            found.setdefault(i, set()).add(np.ascontiguousarray(result).tobytes())
print({i: len(bits) for i, bits in found.items() if len(bits) > 1})
"""


def test_bits_do_not_depend_on_the_number_of_threads():
    """Five threads on however few cores: now one, now another has lost its core in the middle of a block."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "5"}
    run = subprocess.run([sys.executable, "-c", BITS], capture_output=True, text=True, timeout=280, env=environment)
    assert run.stdout == "{}\n", run.stderr[-2000:]


@pytest.fixture
def asleep(two):
    """The team's second thread, which sleeps, and the core that the caller is bound to."""
    if placement.get_core is None:
        pytest.skip("cores are chosen on Linux alone")
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one core")
    os.sched_setaffinity(0, {min(before)})
    use_helper()
    helper = team._team.helpers[0].native_id
    cores = os.sched_getaffinity(helper)
    fall_asleep()
    yield helper, min(before)
    os.sched_setaffinity(helper, cores)
    os.sched_setaffinity(0, before)


def use_helper():
    """Until it has taken part: on a busy machine it may come when all is done."""

    def takes_part():
        times, takers = np.zeros(100, np.int64), np.zeros(100, np.int64)
        count_blocks[100](times, takers, 0, 1000)
        return 1 in takers

    until(takes_part)


def fall_asleep():
    until(lambda: team._team.numbers[team.SLEEPERS] == len(team._team.helpers))


def until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_is_woken_wakes_on_another_core_than_its_waker_and_may_go_there_later(asleep):
    helper, here = asleep
    cores = os.sched_getaffinity(helper)
    assert here in cores
    for _ in range(2):  # the second time what it was before is known
        team._team.keep_off()
        assert os.sched_getaffinity(helper) == cores - {here}
    use_helper()
    assert os.sched_getaffinity(helper) == cores
    fall_asleep()
    team.rouse(2)
    assert os.sched_getaffinity(helper) == cores - {here}
    use_helper()
    assert os.sched_getaffinity(helper) == cores


def test_a_thread_that_slept_works_elsewhere_than_its_caller(asleep):
    helper, here = asleep
    seen = set()

    def look():
        seen.add(frozenset(os.sched_getaffinity(helper)))

    watcher = threading.Thread(target=lambda: until(lambda: look() or len(seen) > 1))
    watcher.start()
    while watcher.is_alive():
        use_helper()
        fall_asleep()
    watcher.join()
    assert frozenset(os.sched_getaffinity(helper) - {here}) in seen


def test_cores_that_somebody_chose_for_a_thread_stay(asleep):
    helper, here = asleep
    for chosen in ({here}, os.sched_getaffinity(helper) - {here}):  # one that has no other core is left alone
        os.sched_setaffinity(helper, chosen)
        team._team.keep_off()
        assert os.sched_getaffinity(helper) == chosen
        use_helper()
        fall_asleep()
        assert os.sched_getaffinity(helper) == chosen


def test_elsewhere_than_on_linux_nothing_happens(monkeypatch):
    monkeypatch.setattr(placement, "get_core", None)
    made = placement.Placement()
    made.keep_off([threading.get_native_id()])
    assert not made.before
