"""Finding image files, and decoding them in background threads."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_np.data import background
from alexnet_np.data.background import batches_in_background
from alexnet_np.data.loading import find_images, load_batches
from alexnet_np.errors import ArgumentError, ImageError
from alexnet_np.identity import preprocess
from alexnet_np.presets import PRESETS

TORCHVISION = PRESETS["torchvision"].preprocessing


def write_images(folder: Path, names: list[str]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names):
        Image.new("RGB", (30, 20), (value, 2 * value, 255 - value)).save(folder / name)
    return [str(folder / name) for name in names]


def data_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("alexnet-data")]


def test_find_images_sorts_folders_and_keeps_the_order_of_what_is_named(tmp_path):
    write_images(tmp_path / "b", ["2.png", "1.JPG"])
    write_images(tmp_path / "b" / "deep", ["0.webp"])
    write_images(tmp_path / "b" / ".thumbnails", ["hidden.png"])
    write_images(tmp_path / "b", [".hidden.png"])
    (tmp_path / "b" / "notes.txt").write_text("no image")
    (tmp_path / "odd.name").write_text("named, so taken")
    found = find_images([tmp_path / "odd.name", "-", tmp_path / "b"])
    below = [str(tmp_path / "b" / name) for name in ("1.JPG", "2.png", "deep/0.webp")]
    assert found == [str(tmp_path / "odd.name"), "-", *below]
    assert find_images(str(tmp_path / "b")) == below


def test_find_images_refuses_what_is_missing_or_empty(tmp_path):
    with pytest.raises(ImageError, match="gone: no such file or folder"):
        find_images([tmp_path / "gone"])
    with pytest.raises(ImageError, match="no images in this folder"):
        find_images([tmp_path])


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_keep_the_order_and_go_past_bad_files(tmp_path, workers, batch_size):
    good = write_images(tmp_path, [f"{i:02}.png" for i in range(11)])
    (tmp_path / "03-bad.png").write_bytes(b"not a picture")
    (tmp_path / "10-bad.png").write_bytes(b"")
    files = find_images(tmp_path)
    batches = list(load_batches(files, batch_size, TORCHVISION, workers=workers))
    assert [file for batch in batches for file in batch.files] == good
    assert [str(f).split(":")[0] for batch in batches for f in batch.failures] == sorted(set(files) - set(good))
    assert all(len(batch.files) + len(batch.failures) == batch_size for batch in batches[:-1])
    expected = np.stack([preprocess(file) for file in good])
    np.testing.assert_array_equal(np.concatenate([batch.x for batch in batches]), expected)


def test_presets_and_dtypes_reach_the_batches(tmp_path):
    files = write_images(tmp_path, ["a.png"])
    (batch,) = load_batches(files, 2, PRESETS["d2l"].preprocessing, dtype="float64")
    assert batch.x.shape == (1, 1, 224, 224)
    assert batch.x.dtype == np.float64


def test_no_files_make_no_batches():
    assert list(load_batches([], 4, TORCHVISION)) == []


def test_closing_early_stops_the_threads(tmp_path):
    files = write_images(tmp_path, ["a.png"]) * 200
    batches = load_batches(files, 2, TORCHVISION)
    next(batches)
    assert data_threads()
    batches.close()
    assert not data_threads()


@pytest.mark.parametrize("name", ["batch_size", "workers"])
def test_wrong_numbers_are_refused_at_once(name):
    with pytest.raises(ArgumentError, match=f"{name} must be a positive int, got 0"):
        load_batches(["a.png"], recipe=TORCHVISION, **{"batch_size": 1, name: 0})


def number_batches(count: int, fill) -> list:
    return batches_in_background([[i] for i in range(count)], lambda n: np.zeros((n, 1)), fill, workers=2)


def test_an_exception_in_a_worker_is_raised_at_its_batch():
    def fill(items, rows):
        if items == [2]:
            raise ZeroDivisionError("in the worker")
        return items

    seen = []
    with pytest.raises(ZeroDivisionError, match="in the worker"):
        for items, _, _ in number_batches(9, fill):
            seen += items
    assert seen == [0, 1]
    assert not data_threads()


def test_looks_ahead_by_a_bounded_number_of_batches():
    filled = []

    def fill(items, rows):
        filled.extend(items)
        return items

    batches = number_batches(50, fill)
    next(batches)
    deadline = time.monotonic() + 5
    while len(filled) < 1 + background.AHEAD and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert sorted(filled) == list(range(1 + background.AHEAD))
    batches.close()


def test_the_threads_of_one_batch_work_at_the_same_time():
    together = threading.Barrier(2, timeout=10)  # breaks, and raises, unless two chunks are filled at once

    def fill(items, rows):
        together.wait()
        return items

    items = list(range(2 * background.CHUNK))
    ((_, _, results),) = batches_in_background([items], lambda n: np.zeros(n), fill, workers=2)
    assert results == items
