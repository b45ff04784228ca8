"""Other people's folders: their names for splits, links, damaged and odd pictures, 16 bits, huge photographs."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np.cli.app import app
from alexnet_np.data import checked
from alexnet_np.data.image_folder import ImageFolder
from alexnet_np.data.loading import find_images
from alexnet_np.data.preprocess import ImageWarning, check_image, read_image
from alexnet_np.presets import PRESETS
from alexnet_np.training.config import Config
from alexnet_np.training.loop import Trainer
from alexnet_np.training.task import folders_of, open_task

RECIPE = PRESETS["torchvision"].preprocessing


def picture(path, seed=0, size=(40, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def classes_below(folder, each):
    for k, name in enumerate(("ash", "elm")):
        for i in range(each):
            picture(folder / name / f"{i}.jpg", seed=10 * k + i)


def config(data, **more):
    return Config(
        dataset="folder",
        data=str(data),
        preset="torchvision",
        width=1 / 32,
        batch_size=4,
        epochs=2,
        augmentation="crop",
        backend="numpy",
        **more,
    )


@pytest.mark.parametrize(
    "parts",
    [("train", "val"), ("train", "valid"), ("Train", "Test"), ("Training", "TESTING"), ("training", "validation")],
)
def test_splits_by_every_name(tmp_path, parts):
    classes_below(tmp_path / parts[0], 4)
    classes_below(tmp_path / parts[1], 2)
    task = open_task(config(tmp_path))
    assert task.classes == ["ash", "elm"] and len(task.train.targets) == 8 and len(task.validation.targets) == 4


def test_train_alone_and_two_names_for_one(tmp_path):
    classes_below(tmp_path / "train", 4)
    task = open_task(config(tmp_path))
    assert task.classes == ["ash", "elm"] and len(task.train.targets) + len(task.validation.targets) == 8
    (tmp_path / "Train").mkdir()
    if len(list(tmp_path.iterdir())) == 2:
        with pytest.raises(anp.DataError, match="both Train and train; keep the one you mean"):
            folders_of(tmp_path)
    with pytest.raises(anp.DataError, match="nodir: no such folder"):
        open_task(config(tmp_path / "nodir"))


def test_links_are_followed_once(tmp_path):
    classes_below(tmp_path / "real", 2)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ash").symlink_to(tmp_path / "real" / "ash")
    (tmp_path / "data" / "ash" / "loop").symlink_to(tmp_path / "data")
    assert ImageFolder(tmp_path / "data", RECIPE).classes == ["ash"]
    assert len(find_images(tmp_path / "data" / "ash")) == 2


def test_bad_pictures_are_left_out_and_said_or_refused(tmp_path):
    classes_below(tmp_path, 6)
    (tmp_path / "ash" / "empty.jpg").write_bytes(b"")
    (tmp_path / "elm" / "text.jpg").write_bytes(b"not a picture")
    (tmp_path / "elm" / "notes.txt").write_text("no picture")
    with (tmp_path / "elm" / "0.jpg").open("rb+") as file:
        file.truncate(700)
    moving = Image.open(tmp_path / "ash" / "1.jpg")
    moving.save(tmp_path / "ash" / "fun.gif", save_all=True, append_images=[moving.rotate(90)])
    folder = ImageFolder(tmp_path, RECIPE)
    assert len(folder.files) == 11 and len(folder.targets) == 11
    said = "\n".join(folder.notices())
    for words in (
        "empty.jpg: an empty file",
        "text.jpg: not an image",
        "0.jpg: cannot be decoded",
        "fun.gif: animated",
    ):
        assert words in said
    assert "1 file, no picture by name" in said and "notes.txt" in said
    with pytest.raises(anp.ImageError, match=r"empty.jpg: an empty file; and 3 more"):
        ImageFolder(tmp_path, RECIPE, strict=True)
    trainer = Trainer(config(tmp_path, validation=0.2), tmp_path / ".run")
    assert len(trainer.notices) == 5
    trainer.fit()
    (tmp_path / "ash" / "2.jpg").unlink()
    resumed = Trainer.resume(tmp_path / ".run", {"epochs": 3})
    assert any("the data set has changed: " in notice for notice in resumed.notices)
    assert resumed.fit()["epoch"] == 3


def test_a_class_without_a_readable_picture_is_refused(tmp_path):
    classes_below(tmp_path, 1)
    (tmp_path / "ash" / "0.jpg").write_bytes(b"")
    with pytest.raises(anp.DataError, match="ash: no image of this class can be read"):
        ImageFolder(tmp_path, RECIPE)


def test_sixteen_bits_are_scaled_with_a_warning_or_clipped(tmp_path):
    values = np.array([[0, 257, 65535, 32768]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    with pytest.warns(ImageWarning, match="16 bits are scaled to 8"):
        assert np.asarray(read_image(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 1, 255, 128]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clipped = np.asarray(read_image(tmp_path / "deep.png", like_torchvision=True))
    assert clipped[0, :, 0].tolist() == np.asarray(Image.open(tmp_path / "deep.png").convert("RGB"))[0, :, 0].tolist()
    assert config(tmp_path, like_torchvision=True).like_torchvision
    task_recipe = open_task_recipe(tmp_path)
    assert task_recipe.like_torchvision


def open_task_recipe(tmp_path):
    classes_below(tmp_path / "c", 2)
    return open_task(config(tmp_path / "c", like_torchvision=True)).recipe


def test_huge_pictures_by_pillows_rule_and_max_pixels(tmp_path, monkeypatch):
    path = picture(tmp_path / "huge.png", size=(30, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.warns(Image.DecompressionBombWarning):
        assert read_image(path).size == (40, 30)
    result = CliRunner().invoke(app, ["classify", str(path), "--weights", "random", "--max-pixels", "1000", "--json"])
    assert result.exit_code == 1
    assert "exceeds limit of 1000 pixels" in json.loads(result.stdout)["failures"][0]["error"]


def test_embed_has_a_row_for_each_argument(tmp_path):
    a, b = picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 2)
    anp.weights.write(tmp_path / "w.npz", anp.alexnet("torchvision", width=1 / 32, seed=0))
    names = [str(path) for path in (b, a, b)]
    out = tmp_path / "e.npz"
    result = CliRunner().invoke(app, ["embed", *names, "--weights", str(tmp_path / "w.npz"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = np.load(out)
    assert found["files"].tolist() == names
    np.testing.assert_array_equal(found["embeddings"][0], found["embeddings"][2])


def test_commands_scale_sixteen_bits_with_a_notice_or_clip_them(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # which --max-pixels changes
    grey = np.random.default_rng(0).integers(2000, 60000, (80, 80), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "x.png")
    anp.weights.write(tmp_path / "net.npz", anp.alexnet(width=1 / 32, seed=0))

    def embedded(*more):
        out = str(tmp_path / "v.npy")
        asked = ["embed", str(tmp_path / "x.png"), "--out", out, "--weights", str(tmp_path / "net.npz")]
        done = CliRunner().invoke(app, [*asked, "--backend", "numpy", *more])
        assert done.exit_code == 0, done.stderr
        return np.load(out), done.stderr

    scaled, said = embedded()
    clipped, nothing = embedded("--like-torchvision")
    assert "16 bits are scaled to 8" in said and "16 bits" not in nothing
    white = anp.preprocess(np.full((80, 80, 3), 255, np.uint8))[None]
    model = anp.alexnet(None, weights=tmp_path / "net.npz").eval()
    expected = model.classifier[:6](model.flatten(model.avgpool(model.features(white))))
    np.testing.assert_allclose(clipped, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(scaled - clipped).max() > 1e-4
    for command in ("walk", "classify", "explain --layer features.0 --at 0,0,0"):
        name, *options = command.split()
        options += ["--weights", str(tmp_path / "net.npz"), "--backend", "numpy", "--max-pixels", "3000"]
        done = CliRunner().invoke(app, [name, str(tmp_path / "x.png"), *options])
        assert done.exit_code == 1 and "--max-pixels" in done.stderr


def test_pictures_are_looked_into_once_and_again_when_they_have_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_NP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(checked, "WORTH", 1)
    looked: list[str] = []
    monkeypatch.setattr(checked, "check_image", lambda file: looked.append(Path(file).name) or check_image(file))
    root = tmp_path / "data"
    for name in ("a.png", "b.png"):
        picture(root / "one" / name)
    (root / "one" / "bad.png").write_bytes(b"no picture")

    def opened():
        looked.clear()
        made = ImageFolder(root, RECIPE)
        return sorted(looked), len(made.files)

    assert opened() == (["a.png", "b.png", "bad.png"], 2)
    assert opened() == (["bad.png"], 2)  # what could not be read may be mended meanwhile
    picture(root / "one" / "c.png")
    os.utime(root / "one" / "a.png", ns=(1, 1))
    assert opened() == (["a.png", "bad.png", "c.png"], 3)
    (root / "one" / "bad.png").unlink()
    assert opened() == ([], 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # another guard: what passed it may not pass now
    assert opened()[0] == ["a.png", "b.png", "c.png"]
    for kept in (tmp_path / "home" / "checked").iterdir():
        kept.write_bytes(b"damaged")
    assert opened()[0] == ["a.png", "b.png", "c.png"]
