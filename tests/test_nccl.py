"""A run on several processes with a GPU each: against stand-ins for CuPy and NCCL, and on a GPU where there is one."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from gpu_threads import DeviceArray, Stream, four_gpus, plain, streams
from thread_groups import Stood, everybody

import alexnet_np as anp
from alexnet_np import backend
from alexnet_np.backend import available_backends
from alexnet_np.device import to_cpu, to_gpu
from alexnet_np.parameters import Parameter
from alexnet_np.training.config import Config
from alexnet_np.training.loop import Trainer
from alexnet_np.training.parallel import nccl
from alexnet_np.training.parallel.counted import Counted
from alexnet_np.training.parallel.exchange import Exchange
from alexnet_np.training.parallel.group import Alone
from alexnet_np.training.parallel.nccl import Nccl, on_gpus
from alexnet_np.training.parallel.trees import fold
from alexnet_np.training.run import Run

gpus = pytest.fixture(four_gpus)

SHAPES = [(3, 5), (7,), (200, 11), (2,)]
TINY = {"dataset": "synthetic", "limit": 24, "image_size": 67, "width": 1 / 32, "batch_size": 8, "epochs": 1}
TINY |= {"lr": 0.02, "momentum": 0.9, "dropout": 0.5, "shards": 4, "augmentation": "mirror"}


@pytest.mark.parametrize("reduce", ["exact", "fast"])
@pytest.mark.parametrize("overlap", [True, False])
def test_gradients_are_summed_on_the_gpus_behind_the_backward(gpus: Any, rng: Any, reduce: str, overlap: bool) -> None:
    values = rng.standard_normal((3, 4, 4000)).astype(np.float32)

    def work(stood: Stood) -> Any:
        nccl = Nccl(stood)
        group, inside = Counted(nccl), nccl._communicator
        parameters = [Parameter(gpus.zeros(shape, np.float32), 1) for shape in SHAPES]
        exchange = Exchange(group, parameters, reduce, bucket=100, overlap=overlap)
        found = []
        for step in values:
            for parameter in reversed(parameters):
                parameter.grad = gpus.asarray(step[group.rank, : parameter.size].reshape(parameter.shape))
                exchange.ready(parameter)
                assert len(streams()) == 1, "the caller's stream is the current one again"
            exchange.finish()
            found.append([to_cpu(parameter.grad) for parameter in parameters])
        if overlap:
            assert exchange.waited == pytest.approx(0.006), "2 ms a step, by the stand-in's clock"
        mine, used = {streams()[-1].ptr}, inside.streams
        assert used.isdisjoint(mine) if overlap else used == mine
        exchange.close()
        size = sum(bucket.flat.nbytes for bucket in exchange.buckets)
        assert group.sent == 3 * 2 * size * 3 // 4, "what a ring would send"
        return found

    for found in everybody(4, work):
        for step, gradients in zip(values, found, strict=True):
            for shape, gradient in zip(SHAPES, gradients, strict=True):
                wanted = fold(np.add, list(step[:, : int(np.prod(shape))])).reshape(shape)
                if reduce == "exact":
                    assert np.array_equal(gradient, wanted)
                else:
                    np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("forgotten", ["before", "after"])
def test_the_stand_in_sees_a_stream_that_is_not_waited_for(gpus: Any, forgotten: str) -> None:
    mine, other = Stream(caller=True), Stream(non_blocking=True)
    array = gpus.zeros(4, np.float32)

    def wait(stream: Stream, for_: Stream, which: str) -> None:
        if which != forgotten:
            stream.wait_event(for_.record(gpus.cuda.Event()))

    with mine:
        array[...] = 1
    with pytest.raises(AssertionError, match="a race"):
        wait(other, mine, "before")
        with other:
            array += 1
        wait(mine, other, "after")
        with mine:
            array.get()


def test_uneven_parts_go_to_and_fro(gpus: Any) -> None:
    counts = [3, 0, 2, 1]

    def work(stood: Stood) -> Any:
        group = Nccl(stood)
        part = gpus.asarray(np.full(counts[group.rank], group.rank, np.float64))
        whole = gpus.empty((2, 3), np.float64)
        group.gather_uneven(part, whole, counts)
        came = group.scatter_uneven(gpus.asarray(np.arange(6.0) + 10 * group.rank), counts)
        return whole.get(), came.get(), group.collect(group.rank), group.share(group.rank)

    begins = np.cumsum([0, *counts])
    for rank, (whole, came, ranks, first) in enumerate(everybody(4, work)):
        assert whole.tolist() == [[0, 0, 0], [2, 2, 3]]
        mine = np.arange(begins[rank], begins[rank + 1])
        assert np.array_equal(came, np.stack([mine + 10 * r for r in range(4)]))
        assert (ranks, first) == ([0, 1, 2, 3], 0)


def test_any_number_of_gpus_ends_with_the_same_bits_and_those_of_the_cpu(gpus: Any, tmp_path: Any) -> None:
    def work(group: Any, backend: str = "cupy") -> Any:
        trainer = Trainer(Config(**TINY, backend=backend), group=group)
        last = trainer.fit()
        assert group.size == 1 or isinstance(trainer.run.group.group, Nccl), "counted"
        tensors = trainer.run.tensors()
        kinds = {type(array) for array in tensors.values()}
        assert kinds == {np.ndarray if backend == "numpy" else DeviceArray}
        return {name: np.array(plain(array)) for name, array in tensors.items()}, last["loss"]

    whole, loss = work(Alone(), "numpy")
    for found, theirs in [work(Alone()), *everybody(2, work), *everybody(4, work)]:
        assert theirs == loss
        for name, array in whole.items():
            assert np.array_equal(found[name], array), name


@pytest.mark.parametrize(("parallel", "preset"), [("weird", "torchvision"), ("towers", "bvlc")])
def test_what_two_gpus_hold_parts_of_ends_as_on_two_processors(gpus: Any, parallel: str, preset: str) -> None:
    config = TINY | {"parallel": parallel, "preset": preset, "shards": 1, "limit": 16, "width": 1 / 16}

    def work(group: Stood, backend: str = "cupy") -> dict[str, np.ndarray]:
        trainer = Trainer(Config(**config, backend=backend), group=group)
        trainer.fit()
        return {name: np.array(plain(array)) for name, array in trainer.run.tensors().items()}

    processors = everybody(2, lambda stood: work(stood, "numpy"))[0]
    for found in everybody(2, work):
        for name, array in processors.items():
            assert np.array_equal(found[name], array), name


def test_the_nth_process_of_a_machine_takes_its_nth_gpu(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ["a", "b", "a", "b"]

    def work(stood: Stood) -> Any:
        monkeypatch.setattr(nccl, "socket", Sockets(hosts))
        Sockets.rank.value = stood.rank
        return type(on_gpus(stood, "cuda")).__name__, gpus.cuda.Device().id

    assert everybody(4, work) == [("Nccl", 0), ("Nccl", 0), ("Nccl", 1), ("Nccl", 1)]
    gpus.cuda.runtime.getDeviceCount = lambda: 1
    words = "ranks 0 and 2 would share GPU 0000:00:00.0 of a: start as many processes on a machine as it has GPUs"
    with pytest.raises(anp.BackendError, match=words):
        everybody(4, work)


class Sockets:
    """The module `socket`, on a machine of another name for every rank."""

    rank = threading.local()

    def __init__(self, hosts: list[str]) -> None:
        self.hosts = hosts

    def gethostname(self) -> str:
        return self.hosts[self.rank.value]


def test_processors_and_a_process_alone_need_no_nccl(gpus: Any) -> None:
    del gpus.nccl.available
    assert isinstance(on_gpus(Alone(), "cuda"), Alone)

    def work(stood: Stood) -> Any:
        return on_gpus(stood, "numba") is stood

    assert everybody(2, work) == [True, True]


def test_without_nccl_or_a_gpu_all_say_so(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(stood: Stood) -> Any:
        return Run(Config(**TINY, backend="cuda"), group=stood)

    gpus.nccl.available = False
    with pytest.raises(anp.MissingPackageError, match="a GPU each need NCCL: pip install nvidia-nccl-cu13"):
        everybody(2, work)
    gpus.cuda.runtime.getDeviceCount = lambda: 0
    monkeypatch.setattr(backend, "_usable", {"numpy"})
    with pytest.raises(anp.BackendError, match="backend 'cuda' is unavailable: no CUDA device"):
        everybody(2, work)


def test_what_went_wrong_on_the_way_is_raised_by_the_next_call(gpus: Any) -> None:
    group = Nccl(Alone())
    error = type("NcclError", (RuntimeError,), {"__module__": "cupy_backends.cuda.libs.nccl"})
    group._communicator.failed = error("NCCL_ERROR_REMOTE_ERROR: remote process exited\nor there was a network error")
    with pytest.raises(anp.BackendError, match="cuda: NCCL: NCCL_ERROR_REMOTE_ERROR: remote process exited or there"):
        group.sum(gpus.zeros(3, np.float32))


def test_cupy_has_what_is_asked_of_it() -> None:
    cupy = pytest.importorskip("cupy")
    theirs = pytest.importorskip("cupy.cuda.nccl")
    if not theirs.available:
        pytest.skip("needs nvidia-nccl beside CuPy")
    for name in ("get_unique_id", "groupStart", "groupEnd", "NCCL_FLOAT32", "NCCL_FLOAT64", "NCCL_SUM"):
        assert hasattr(theirs, name)
    for name in ("send", "recv", "allGather", "allReduce", "check_async_error"):
        assert hasattr(theirs.NcclCommunicator, name)
    for name in ("use", "pci_bus_id"):
        assert hasattr(cupy.cuda.Device, name)
    assert callable(cupy.cuda.get_elapsed_time)
    assert cupy.cuda.runtime.runtimeGetVersion() // 1000 >= 12


# On a GPU. There is one, so R = 1: every call goes to NCCL and back to the same GPU; that several agree is shown above.


@pytest.fixture
def one_gpu() -> Nccl:
    usable = available_backends()["cuda"]
    if usable is not True:
        pytest.skip(str(usable))
    return Nccl(Alone())


@pytest.mark.gpu
@pytest.mark.parametrize("reduce", ["exact", "fast"])
def test_on_a_gpu_a_stream_of_its_own_takes_the_gradients(one_gpu: Nccl, rng: Any, reduce: str) -> None:
    parameters = [Parameter(to_gpu(np.zeros(shape, np.float32)), 1) for shape in [*SHAPES, (4096, 4096)]]
    exchange = Exchange(one_gpu, parameters, reduce, bucket=1e6)
    for _ in range(3):
        given = [rng.standard_normal(parameter.shape, dtype=np.float32) for parameter in parameters]
        for parameter, gradient in reversed(list(zip(parameters, given, strict=True))):
            parameter.grad = to_gpu(gradient)
            exchange.ready(parameter)
        exchange.finish()
        for parameter, gradient in zip(parameters, given, strict=True):
            assert np.array_equal(to_cpu(parameter.grad), gradient)
    assert 0 <= exchange.waited < 60


@pytest.mark.gpu
def test_on_a_gpu_a_run_with_nccl_ends_as_one_without(one_gpu: Nccl) -> None:
    config = Config(**TINY, backend="cuda")
    ends = []
    for exchanging in (False, True):
        trainer = Trainer(config)
        step = trainer.run.parallel
        assert step is not None
        if exchanging:
            step.exchange = Exchange(one_gpu, step.trained, "exact")
        trainer.fit()
        ends.append({name: to_cpu(array) for name, array in trainer.run.tensors().items()})
    for name, array in ends[0].items():
        assert np.array_equal(array, ends[1][name]), name


@pytest.mark.gpu
def test_on_a_gpu_uneven_parts_come_back(one_gpu: Nccl) -> None:
    part = to_gpu(np.arange(6, dtype=np.float32))
    whole = to_gpu(np.zeros((2, 3), np.float32))
    one_gpu.gather_uneven(part, whole, [6])
    assert np.array_equal(to_cpu(whole).reshape(-1), to_cpu(part))
    assert np.array_equal(to_cpu(one_gpu.scatter_uneven(part, [6])), [to_cpu(part)])
