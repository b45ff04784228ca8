"""The tape that a plan's launches are written down on: what it records, where it puts arrays, how it runs."""

from __future__ import annotations

import threading
from typing import Any

import cuda_shim
import numpy as np
import pytest
from cuda_shim import ShimExecutor, to_device

from alexnet_np.kernels import relu_cuda
from alexnet_np.kernels.gemm_cuda import gemm, matmul_precision
from alexnet_np.kernels.gpu import runtime
from alexnet_np.kernels.gpu.runtime import recording, zeros
from alexnet_np.kernels.gpu.tape import ALIGNMENT, Launch, Multiply, Tape, Zero

needs_gpp = pytest.mark.skipif(cuda_shim.compiler() is None, reason="needs g++ to compile the CUDA sources as C++")


def test_ghosts_take_no_memory_and_do_not_touch() -> None:
    tape = Tape()
    ghosts = [tape.ghost((1 << 20, 1 << 10)) for _ in range(50)]  # 4 GiB each
    spans = sorted((g.ctypes.data, g.ctypes.data + g.nbytes) for g in ghosts)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


def test_what_is_recorded() -> None:
    tape = Tape()
    x = tape.enters((4, 6))
    with recording(tape):
        y = relu_cuda.compute(x)
        out = zeros((1, 4, 4), y)
        gemm(y[None], y.T[None], out, accumulate=True)
    assert [type(call) for call in tape.calls] == [Launch, Zero, Multiply]
    launch, _, (product,) = tape.calls
    assert launch.kernel.name == "relu_forward"
    assert (launch.grid, launch.block) == ((1, 1, 1), (256, 1, 1))
    assert product.accumulate
    assert product.a.address == product.b.address == y.ctypes.data


def test_an_array_of_nobody() -> None:
    with recording(Tape()), pytest.raises(AssertionError, match="came on the tape that is not of it"):
        relu_cuda.compute(np.zeros(3, np.float32))


def test_other_threads_are_not_recorded() -> None:
    tape, recorder = Tape(), cuda_shim.Recorder()
    with runtime.use_executor(recorder), recording(tape):
        other = threading.Thread(target=lambda: relu_cuda.compute(np.zeros(3, np.float32)))
        other.start()
        other.join()
    assert not tape.calls
    assert len(recorder.launched) == 1


def chain(tape: Tape, sizes: list[int]) -> list[np.ndarray]:
    """Arrays of which each call reads one and writes the next."""
    arrays = [tape.enters((sizes[0],))]
    for size in sizes[1:]:
        array = tape.ghost((size,))
        tape._note(Zero(array), arrays[-1].ctypes.data, array.ctypes.data)
        arrays.append(array)
    return arrays


def test_arrays_needed_together_do_not_share_memory() -> None:
    rng = np.random.default_rng(0)
    for trial in range(50):
        tape = Tape()
        arrays = chain(tape, list(rng.integers(1, 5000, 12)))
        for array in rng.permutation(12)[:3]:
            tape.leaves(arrays[array])
        tape.stays(arrays[trial % 12])
        total = tape.plan_memory()
        buffers = tape.buffers
        assert all(b.offset % ALIGNMENT == 0 and b.offset + b.nbytes <= total for b in buffers)
        for i, a in enumerate(buffers):
            for b in buffers[i + 1 :]:
                apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
                assert apart or not a.overlaps(b)


def test_arrays_not_needed_together_do() -> None:
    tape = Tape()
    chain(tape, [1024] * 9)
    assert tape.plan_memory() == 2 * 4096
    arrays = chain(tape := Tape(), [1024] * 9)
    tape.leaves(arrays[1])
    assert tape.plan_memory() == 3 * 4096


@needs_gpp
@pytest.mark.parametrize("precision", ["strict", "tf32x3"])
def test_a_tape_runs_on_the_memory_it_is_put_on(precision: str) -> None:
    tape = Tape()
    a, b = tape.enters((5, 7)), tape.enters((7, 3))
    with recording(tape), matmul_precision(precision):
        out = tape.ghost((1, 5, 3))
        gemm(relu_cuda.compute(a)[None], b[None], out)
        y = tape.leaves(relu_cuda.compute(out))
    executor = ShimExecutor()
    with runtime.use_executor(executor):
        queue = executor.queue(to_device(np.zeros(1)))
        tape.put(queue.allocate(tape.plan_memory()))
        calls = tape.bind(queue)
        for seed in range(2):
            rng = np.random.default_rng(seed)
            values: list[Any] = [rng.standard_normal(ghost.shape, np.float32) for ghost in (a, b)]
            for ghost, value in zip((a, b), values, strict=True):
                tape.real(ghost)[:] = value
            for call in calls:
                call()
            expected = np.maximum(np.maximum(values[0], 0).astype(float) @ values[1], 0)
            np.testing.assert_allclose(tape.real(y)[0], expected, rtol=0, atol=3e-6)


@needs_gpp
def test_arrays_from_outside_and_of_another_tape() -> None:
    given, tape = Tape(), Tape()
    weights = given.stays(given.ghost((6,)))
    given.put(to_device(np.zeros(given.plan_memory(), np.uint8)))
    given.real(weights)[:] = [-1, 2, -3, 4, -5, 6]
    tape = Tape(given)
    real = to_device(np.arange(6, dtype=np.float32))
    own = tape.ghost((6,))
    tape.put_at(own, real)
    with recording(tape):
        y, z = tape.leaves(relu_cuda.compute(weights)), tape.leaves(relu_cuda.compute(own))
    with runtime.use_executor(ShimExecutor()):
        tape.put(to_device(np.zeros(tape.plan_memory(), np.uint8)))
        for call in tape.bind(None):
            call()
    np.testing.assert_array_equal(tape.real(y), [0, 2, 0, 4, 0, 6])
    np.testing.assert_array_equal(tape.real(z), np.arange(6))
