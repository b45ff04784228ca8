"""Folders in ImageNet's layout, and the cache of their pixels."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet_np.data import image_folder
from alexnet_np.data.augment import CenterCrop
from alexnet_np.data.image_folder import ImageFolder
from alexnet_np.errors import DataError, ImageError
from alexnet_np.identity import preprocess
from alexnet_np.presets import PRESETS

TORCHVISION, D2L = PRESETS["torchvision"].preprocessing, PRESETS["d2l"].preprocessing


def write(path: Path, size: tuple[int, int] = (70, 50), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "train"
    for seed, name in enumerate(["dog/2.png", "dog/1.JPEG", "cat/deep/a.png", "cat/z.png", "eel/3.png"]):
        write(root / name, seed=seed)
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "README").write_text("not a class")
    (root / ".cache").mkdir()
    return root


def test_classes_and_files_are_sorted(root):
    folder = ImageFolder(root, TORCHVISION)
    assert folder.classes == ["cat", "dog", "eel"]
    assert [str(Path(file).relative_to(root)) for file in folder.files] == [
        "cat/deep/a.png",
        "cat/z.png",
        "dog/1.JPEG",
        "dog/2.png",
        "eel/3.png",
    ]
    assert folder.targets.tolist() == [0, 0, 1, 1, 2]


def test_another_sets_classes_keep_their_numbers(root):
    folder = ImageFolder(root, TORCHVISION, classes=["eel", "cow", "dog", "cat"])
    assert folder.targets.tolist() == [3, 3, 2, 2, 0]
    assert folder.classes == ["eel", "cow", "dog", "cat"]
    with pytest.raises(DataError, match=r"train.eel: not one of the 2 classes expected: cat, dog"):
        ImageFolder(root, TORCHVISION, classes=["cat", "dog"])


@settings(max_examples=25, deadline=None)
@given(width=st.integers(20, 400), height=st.integers(20, 400))
def test_center_crops_of_a_folder_are_the_numbers_of_preprocess(tmp_path_factory, width, height):
    root = tmp_path_factory.mktemp("folder")
    file = write(root / "one" / "image.png", (height, width))
    augment = CenterCrop(TORCHVISION)
    out = np.empty(augment.shape, np.float32)
    augment(ImageFolder(root, TORCHVISION).pixels(0), np.empty(0), out)
    np.testing.assert_array_equal(out, preprocess(file))


def test_grey_folders_for_d2l(root):
    assert ImageFolder(root, D2L).pixels(0).shape == (224, 224, 1)


def test_the_cache_holds_the_same_pixels_and_is_not_decoded_again(root, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(image_folder, "CACHE_BATCH", 2)
    plain = ImageFolder(root, TORCHVISION)
    cached = ImageFolder(root, TORCHVISION, cache=tmp_path / "new" / "cache", progress=lambda *step: steps.append(step))
    assert steps == [(2, 5), (4, 5), (5, 5)]
    monkeypatch.setattr(image_folder, "read_pixels", None)
    again = ImageFolder(root, TORCHVISION, cache=tmp_path / "new" / "cache")
    monkeypatch.undo()
    for i in range(5):
        np.testing.assert_array_equal(cached.pixels(i), plain.pixels(i))
        np.testing.assert_array_equal(again.pixels(i), plain.pixels(i))
    assert sorted(path.name for path in (tmp_path / "new" / "cache").iterdir()) == ["index.json", "pixels.npy"]


def change_content(root: Path) -> None:
    write(root / "eel/3.png", (60, 90), seed=9)


def add_a_file(root: Path) -> None:
    write(root / "cat/b.png", seed=9)


def remove_a_file(root: Path) -> None:
    (root / "cat/z.png").unlink()


def rename_a_file(root: Path) -> None:
    (root / "cat/z.png").rename(root / "dog/0.png")


@pytest.mark.parametrize("change", [change_content, add_a_file, remove_a_file, rename_a_file])
def test_the_cache_is_written_anew_when_a_file_changes(root, tmp_path, change):
    ImageFolder(root, TORCHVISION, cache=tmp_path / "cache")
    change(root)
    plain, cached = ImageFolder(root, TORCHVISION), ImageFolder(root, TORCHVISION, cache=tmp_path / "cache")
    for i in range(len(plain.files)):
        np.testing.assert_array_equal(cached.pixels(i), plain.pixels(i))


def test_a_new_time_of_the_same_size_writes_the_cache_anew(root, tmp_path):
    ImageFolder(root, TORCHVISION, cache=tmp_path / "cache")
    stat = (root / "eel/3.png").stat()
    os.utime(root / "eel/3.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    steps = []
    ImageFolder(root, TORCHVISION, cache=tmp_path / "cache", progress=lambda done, total: steps.append(done))
    assert steps == [5]


def test_another_preset_writes_the_cache_anew(root, tmp_path):
    ImageFolder(root, TORCHVISION, cache=tmp_path / "cache")
    assert ImageFolder(root, D2L, cache=tmp_path / "cache").pixels(0).shape == (224, 224, 1)


@pytest.mark.parametrize("note", ["", "{", "[]", json.dumps({"files": []})])
def test_a_damaged_index_writes_the_cache_anew(root, tmp_path, note):
    plain = ImageFolder(root, TORCHVISION, cache=tmp_path / "cache")
    (tmp_path / "cache" / "index.json").write_text(note)
    np.testing.assert_array_equal(ImageFolder(root, TORCHVISION, cache=tmp_path / "cache").pixels(4), plain.pixels(4))


def test_a_truncated_cache_is_one_line(root, tmp_path):
    ImageFolder(root, TORCHVISION, cache=tmp_path / "cache")
    os.truncate(tmp_path / "cache" / "pixels.npy", 100_000)
    with pytest.raises(DataError, match=r"cache: an unusable cache: .*; delete it, or go without") as caught:
        ImageFolder(root, TORCHVISION, cache=tmp_path / "cache")
    assert len(str(caught.value).splitlines()) == 1


def test_a_cache_that_cannot_be_written_is_one_line(root):
    with pytest.raises(DataError, match=r"README.cache: an unusable cache: .*Not a directory"):
        ImageFolder(root, TORCHVISION, cache=root / "README" / "cache")


def test_a_bad_image_is_named_and_leaves_no_half_cache(root, tmp_path):
    (root / "dog" / "0.png").write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"dog.0.png: not an image"):
        ImageFolder(root, TORCHVISION, cache=tmp_path / "cache", strict=True)
    assert not (tmp_path / "cache").exists()
    folder = ImageFolder(root, TORCHVISION)
    write(root / "dog" / "1.JPEG").write_bytes(b"damaged later")
    with pytest.raises(ImageError, match=r"dog.1.JPEG: not an image"):
        folder.pixels(2)


def test_wrong_folders_are_refused_by_name(root, tmp_path):
    with pytest.raises(DataError, match="gone: no such folder"):
        ImageFolder(tmp_path / "gone", TORCHVISION)
    with pytest.raises(DataError, match="dog: holds no class folders; images are expected as .*dog.CLASS.IMAGE"):
        ImageFolder(root / "dog", TORCHVISION)
    (root / "owl").mkdir()
    with pytest.raises(DataError, match="owl: no images for this class"):
        ImageFolder(root, TORCHVISION)
