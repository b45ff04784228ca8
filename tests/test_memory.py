"""Recycled memory is never shared by two live arrays, and comes back once its last view is gone."""

import gc
import threading

import numpy as np
import pytest
from at_once import at_once

from alexnet_np.kernels.cpu import memory

MB = (1 << 18,)  # floats


@pytest.fixture(autouse=True)
def no_blocks(monkeypatch):
    monkeypatch.setattr(memory, "_idle", [])
    memory._returned.clear()


def address(array):
    return array.__array_interface__["data"][0]


def test_live_arrays_have_memory_of_their_own():
    arrays = [memory.empty(MB) for _ in range(4)]
    assert len({address(a) for a in arrays}) == 4
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_memory_comes_back_when_the_last_view_is_gone():
    first = memory.empty((4, 1 << 16))
    where, view = address(first), first.reshape(2, -1).T[5:]
    del first
    assert address(memory.empty(MB)) != where  # the view still refers to it
    del view
    assert where in {address(a) for a in [memory.empty(MB) for _ in range(2)]}


def test_shape_dtype_and_writeability():
    for shape, dtype in (((1024, 300), np.float32), ((2, 3), np.float32), ((0, 5), np.float32), ((1 << 21,), np.uint8)):
        array = memory.empty(shape, dtype)
        assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable


def test_what_is_idle_longest_gives_way(monkeypatch):
    monkeypatch.setattr(memory, "KEEP", 5 << 20)
    for megabytes in (16, 4, 1):  # each idle at once; none fits the next
        memory.empty((megabytes << 18,))
    held = memory.empty((64 << 18,))
    assert held.size and [block.size >> 20 for block in memory._idle] == [4, 1]


def test_a_view_that_only_another_library_holds_keeps_the_memory():
    torch = pytest.importorskip("torch")
    array = memory.empty(MB)
    where, theirs = address(array), torch.from_numpy(array[5:])
    lines = memoryview(array[7:])
    del array
    assert address(memory.empty(MB)) != where
    del theirs
    assert address(memory.empty(MB)) != where
    del lines
    assert where in {address(a) for a in [memory.empty(MB) for _ in range(3)]}


def test_memory_comes_back_from_a_circle_and_from_another_thread():
    circle = [memory.empty(MB)]
    where = address(circle[0])
    circle.append(circle)
    del circle
    gc.collect()
    array = memory.empty(MB)
    assert address(array) == where
    box = [array]
    del array
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert address(memory.empty(MB)) == where


def test_a_collection_at_any_moment_is_no_trouble(monkeypatch):
    """Garbage may be collected, and memory come back, while `empty` has its turn."""

    def collect(size, dtype):
        circle = [memory.Lease(np.zeros(1 << 20, np.uint8), (1 << 20,), np.dtype(np.uint8))]
        circle.append(circle)
        del circle
        gc.collect()
        return empty(size, dtype)

    empty = np.empty
    monkeypatch.setattr(np, "empty", collect)
    assert memory.empty(MB).shape == MB
    assert len(memory._returned) == 2


def test_a_block_serves_what_is_a_little_smaller():
    where = address(memory.empty((3 << 18,)))
    assert address(memory.empty(((3 << 18) - 1000,))) == where
    assert address(memory.empty(MB)) != where  # a third of it would waste too much


def test_threads_never_get_the_same_block():
    wrong = []

    def work(mark):
        for _ in range(200):
            array = memory.empty((1 << 18,))
            array[::4096] = mark
            if (array[::4096] != mark).any():
                wrong.append(mark)

    at_once(work, range(4))
    assert not wrong


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2), (3, 2, 1, 0)])
def test_empty_like_keeps_the_order_of_the_axes(axes):
    x = np.zeros((8, 16, 64, 64), np.float32).transpose(axes)
    y = memory.empty_like(x)
    assert y.shape == x.shape and y.strides == x.strides
