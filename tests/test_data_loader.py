"""The loader: one order for any number of workers, entered anywhere; and the data sets that need no files."""

import itertools
import threading
import time

import numpy as np
import pytest

from alexnet_np.data.augment import CenterCrop, RandomCrop, TenCrop, Upsample
from alexnet_np.data.dataset import ArrayDataset, Synthetic, split
from alexnet_np.data.loader import Loader
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError
from alexnet_np.presets import PRESETS

TINY = PRESETS["torchvision"].preprocessing._replace(crop=24)
DATASET = Synthetic(37, classes=5, size=32)


def make(**options) -> Loader:
    return Loader(DATASET, **{"batch_size": 10, "augment": RandomCrop(TINY), "shuffle": True, "seed": 3, **options})


def collected(loader: Loader, epoch: int = 0, start_batch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    batches = list(loader.epoch(epoch, start_batch))
    return np.concatenate([x for x, _ in batches]), np.concatenate([target for _, target in batches])


def test_without_shuffling_the_samples_come_in_order():
    x, targets = collected(make(shuffle=False, augment=CenterCrop(TINY)))
    np.testing.assert_array_equal(targets, DATASET.targets)
    for i in 0, 17, 36:
        expected = np.empty((3, 24, 24), np.float32)
        CenterCrop(TINY)(DATASET.pixels(i), np.empty(0), expected)
        np.testing.assert_array_equal(x[i], expected)


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_workers_changes_no_bit(workers):
    for one, many in zip(collected(make(workers=1), 4), collected(make(workers=workers), 4), strict=True):
        np.testing.assert_array_equal(one, many)


def test_an_epoch_entered_in_its_middle_goes_on_as_it_would_have():
    x, targets = collected(make(), 2)
    for start in range(5):
        rest = list(make().epoch(2, start))
        assert len(rest) == 4 - start
        for i, (later_x, later_targets) in enumerate(rest, start):
            np.testing.assert_array_equal(later_x, x[10 * i : 10 * i + 10])
            np.testing.assert_array_equal(later_targets, targets[10 * i : 10 * i + 10])


def test_every_epoch_holds_every_sample_once_with_its_target():
    loader = make(augment=CenterCrop(TINY))
    plain = collected(make(augment=CenterCrop(TINY), shuffle=False))
    for epoch in range(3):
        x, targets = collected(loader, epoch)
        order = [int(np.flatnonzero((plain[0] == image).all((1, 2, 3)))[0]) for image in x]
        assert sorted(order) == list(range(37))
        np.testing.assert_array_equal(targets, DATASET.targets[order])
        assert order != sorted(order)


def test_epochs_and_seeds_differ():
    keys = [(make(), 0), (make(), 1), (make(seed=4), 0)]
    first = [next(iter(loader.epoch(epoch)))[0] for loader, epoch in keys]
    for a, b in itertools.combinations(first, 2):
        assert not np.array_equal(a, b)


def test_drop_last_leaves_out_the_rest():
    assert len(make()) == 4
    assert [len(x) for x, _ in make().epoch(0)] == [10, 10, 10, 7]
    assert len(make(drop_last=True)) == 3
    assert [len(x) for x, _ in make(drop_last=True).epoch(0)] == [10, 10, 10]
    assert list(make(drop_last=True, batch_size=40).epoch(0)) == []


def test_rows_have_the_shape_and_dtype_asked_for():
    x, target = next(iter(make(augment=TenCrop(TINY), dtype="float64").epoch(0)))
    assert x.shape == (10, 10, 3, 24, 24)
    assert x.dtype == np.float64
    assert target.dtype == np.int64


class Slow(Synthetic):
    def pixels(self, index: int) -> np.ndarray:
        time.sleep(0.01)
        return super().pixels(index)


def test_the_wait_for_slow_data_is_counted_and_the_consumers_own_time_is_not():
    loader = Loader(Slow(16, size=32), 8, augment=CenterCrop(TINY), workers=1)
    for _ in loader.epoch(0):
        time.sleep(0.05)
    assert loader.waited >= 0.07  # the first batch: nothing could be made before it was asked for
    assert loader.elapsed >= loader.waited + 0.09


class Broken(Synthetic):
    def pixels(self, index: int) -> np.ndarray:
        if index == 25:
            raise RuntimeError("sample 25")
        return super().pixels(index)


def test_an_exception_is_raised_at_its_batch_and_stops_the_threads():
    seen = 0
    with pytest.raises(RuntimeError, match="sample 25"):
        for _ in Loader(Broken(37, size=32), 10, augment=CenterCrop(TINY)).epoch(0):
            seen += 1
    assert seen == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("alexnet-data")]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": 0}, {"batch_size": 2.5}])
def test_wrong_numbers_are_refused(options):
    with pytest.raises(ArgumentError, match="must be a positive int"):
        make(**options)


def test_an_integer_dtype_is_refused():
    with pytest.raises(DtypeError, match="must be float32 or float64, got 'uint8'"):
        make(dtype="uint8")


@pytest.mark.parametrize("start", [-1, 5])
def test_a_start_outside_the_epoch_is_refused(start):
    with pytest.raises(ArgumentError, match="start_batch must be between 0 and 4"):
        make().epoch(0, start)


def test_grey_images_are_upsampled_for_d2l():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    dataset = ArrayDataset(images, np.array([2, 0, 1]), ["a", "b", "c"])
    ((x, targets),) = Loader(dataset, 8, augment=Upsample(PRESETS["d2l"].preprocessing)).epoch(0)
    assert x.shape == (3, 1, 224, 224)
    np.testing.assert_array_equal(x[:, 0, 0, 0], images[:, 0, 0] / np.float32(255))
    np.testing.assert_array_equal(targets, [2, 0, 1])


def test_array_datasets_are_checked():
    images, targets = np.zeros((4, 5, 5), np.uint8), np.arange(4)
    with pytest.raises(DtypeError, match="must be uint8, got float64"):
        ArrayDataset(images.astype(float), targets, list("abcd"))
    with pytest.raises(ShapeError, match=r"got \(4, 5, 5\) and \(3,\)"):
        ArrayDataset(images, targets[:3], list("abcd"))
    with pytest.raises(ArgumentError, match="targets of 0 to 3, but there are 3 classes"):
        ArrayDataset(images, targets, list("abc"))


def test_a_split_parts_every_class_and_loses_nothing():
    targets = np.repeat([0, 1, 2, 3], [40, 10, 2, 1])
    images = np.arange(53, dtype=np.uint8)[:, None, None].repeat(3, 1).repeat(3, 2)
    dataset = ArrayDataset(images, targets, list("abcd"))
    larger, smaller = split(dataset, 0.2, seed=1)
    assert np.bincount(smaller.targets, minlength=4).tolist() == [8, 2, 1, 0]
    assert np.bincount(larger.targets, minlength=4).tolist() == [32, 8, 1, 1]
    values = [int(part.pixels(i)[0, 0, 0]) for part in (larger, smaller) for i in range(len(part.targets))]
    assert sorted(values) == list(range(53))
    assert [targets[value] for value in values] == [*larger.targets, *smaller.targets]
    assert smaller.classes == dataset.classes
    assert not np.array_equal(split(dataset, 0.2, seed=2)[1].indices, smaller.indices)
    with pytest.raises(ArgumentError, match="fraction must be between 0 and 1"):
        split(dataset, 1)


def test_synthetic_images_are_their_seeds_alone():
    images = [Synthetic(20, size=40, seed=seed).pixels(7) for seed in (0, 0, 1)]
    assert images[0].shape == (40, 40, 3)
    assert images[0].dtype == np.uint8
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert Synthetic(9, size=31, channels=1).pixels(3).shape == (31, 31, 1)


def test_synthetic_classes_can_be_told_apart_by_their_frequency():
    dataset = Synthetic(60, classes=10, size=128)
    found = []
    for i in range(60):
        spectrum = np.abs(np.fft.fft2(dataset.pixels(i).mean(-1)))
        spectrum[0, 0] = 0
        row, column = np.unravel_index(spectrum[:, :64].argmax(), (128, 64))
        frequency = np.hypot(min(row, 128 - row), column)
        found.append(np.abs(np.log(frequency / dataset.frequencies)).argmin())
    assert (np.array(found) == dataset.targets).mean() >= 0.95
