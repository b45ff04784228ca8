"""What the package carries: a trained network and real garments. Their sizes, where they are from, how good it is."""

import dataclasses
import json
import re
import shlex
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from oracles import refused
from PIL import Image
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np.cli import train
from alexnet_np.cli.app import app
from alexnet_np.data import idx
from alexnet_np.data.augment import Upsample
from alexnet_np.data.dataset import Subset
from alexnet_np.data.garments import garments
from alexnet_np.data.labels import FASHION_MNIST
from alexnet_np.data.loader import Loader
from alexnet_np.identity import preprocess
from alexnet_np.presets import PRESETS, preset_of_weights
from alexnet_np.study.contact_sheet import SIDE, Tile, contact_sheet
from alexnet_np.training import checkpoint
from alexnet_np.training.evaluation import evaluate
from alexnet_np.training.task import evaluation_augment, find_recipe_of
from alexnet_np.training.trained import open_trained
from alexnet_np.weights import registry

NAME = "FASHION_MNIST_V1"
ENTRY = registry.ENTRIES[NAME]
HERE = Path(anp.__file__).parent
RIGHT = 19  # of the twenty garments

installed = pytest.mark.skipif(not idx.DEBIAN_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("d2l", weights=NAME, width=ENTRY.width, backend="numba").eval()


def test_it_is_small_and_the_very_file(tmp_path, monkeypatch):
    path = anp.weights.find(NAME)
    assert path == HERE / "assets" / ENTRY.file == anp.weights.download(NAME)
    assert path.stat().st_size == ENTRY.size <= 3_000_000
    damaged = tmp_path / ENTRY.file
    shutil.copy(path, damaged)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(registry, "ASSETS", tmp_path)
    with refused(anp.WeightsError, "FASHION_MNIST_V1: .* has SHA-256 .*; install this package anew"):
        anp.weights.load(NAME)


@pytest.fixture(scope="module")
def config():
    return open_trained(anp.weights.find(NAME)).config


def test_the_figures_in_the_registry_are_those_in_the_file():
    trained = open_trained(anp.weights.find(NAME))
    assert trained.classes == FASHION_MNIST
    assert (trained.config.preset, trained.config.width) == (preset_of_weights(NAME), ENTRY.width)
    assert sum(p.data.size for p in trained.model.parameters()) == 737_506
    result = checkpoint.read(anp.weights.find(NAME))[1]["result"]
    assert (round(100 * result["accuracy"], 2), round(100 * result["top5"], 2)) == (ENTRY.top1, ENTRY.top5)


@pytest.mark.parametrize("page", [HERE / "assets" / "README.md", HERE.parent / "README.md"], ids=["assets", "README"])
def test_the_command_that_is_written_down_makes_its_configuration(page, config, monkeypatch):
    """The command is given to the command line itself, which must come to the configuration in the file."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"alexnet (train --out runs/fashion\b[^`]*?)\n(?:\n|```)", text)
    asked = []

    def stop(config, *arguments, **options):
        asked.append(config)
        raise anp.CheckpointError("enough")

    monkeypatch.setattr(train, "Trainer", stop)
    CliRunner().invoke(app, shlex.split(command))
    assert [as_meant(each) for each in asked] == [as_meant(config)]


def as_meant(config):
    """A file that is older than "the network's own" names what that is."""
    own = {"image_size": PRESETS[config.preset].preprocessing.crop, "activation": "relu"}
    left = {name: own[name] for name in own if getattr(config, name) in (None, "own")}
    return dataclasses.replace(config, **left)


def test_it_tells_the_garments(model):
    carried = garments()
    x = np.stack([preprocess(garment.picture, preset="d2l") for garment in carried])
    guesses = model(x).argmax(1)
    right = [FASHION_MNIST[guess] == garment.label for guess, garment in zip(guesses, carried, strict=True)]
    assert sum(right) == RIGHT
    with anp.no_grad():
        plan = anp.compile(model, max_batch=20)(x)
    np.testing.assert_array_equal(plan.argmax(1), guesses)


def test_two_garments_of_each_class():
    carried = garments()
    assert [garment.label for garment in carried] == [name for name in FASHION_MNIST for _ in range(2)]
    assert all(garment.picture.size == (28, 28) and garment.picture.mode == "L" for garment in carried)


@installed
def test_the_garments_are_the_first_of_their_class_in_the_test_set():
    dataset = idx.fashion_mnist("test")
    recipe = PRESETS["d2l"].preprocessing
    for label, (first, second) in zip(FASHION_MNIST, zip(*[iter(garments())] * 2, strict=True), strict=True):
        of_its_class = np.flatnonzero(dataset.targets == FASHION_MNIST.index(label))
        assert [first.number, second.number] == of_its_class[:2].tolist()
        for garment in first, second:
            pixels = dataset.pixels(garment.number)
            np.testing.assert_array_equal(np.asarray(garment.picture), pixels[..., 0])
            x = np.empty((1, 224, 224), np.float32)
            Upsample(recipe)(pixels, np.zeros(1), x)  # what the network was trained on
            np.testing.assert_array_equal(preprocess(garment.picture, preset="d2l"), x)


@installed
def test_its_accuracy_on_the_first_thousand_test_images(model, config):
    dataset = Subset(idx.fashion_mnist("test"), np.arange(1000))
    loader = Loader(dataset, 200, augment=evaluation_augment(config, find_recipe_of(config)))
    with closing(loader.epoch(0)) as batches:
        result = evaluate(model, batches, 10)
    assert result.top1 == pytest.approx(0.930, abs=0.0021)  # two images, on another backend


def test_evaluate_and_classify_by_name(tmp_path):
    for number, garment in enumerate(garments()[:2]):
        garment.picture.save(tmp_path / f"{number}.png")
    result = CliRunner().invoke(app, ["classify", str(tmp_path), "--weights", NAME, "--json"])
    found = json.loads(result.stdout)
    assert found["model"]["preset"] == "d2l" and not found["model"]["random_weights"]
    assert [image["top"][0]["label"] for image in found["results"]] == ["t-shirt"] * 2
    result = CliRunner().invoke(app, ["summary", "--preset", "d2l", "--json"])
    assert json.loads(result.stdout)["parameters"] == 46_764_746, "a narrow network does not stand in for the preset"


# The contact sheet


def test_a_wrong_tile_is_framed_and_a_right_one_is_not():
    picture = Image.new("L", (28, 28), 128)
    sheet = contact_sheet([Tile(picture, "a", "a", 0.9), Tile(picture, "a", "b", 0.5)], "two tiles", columns=2)
    pixels = np.asarray(sheet).astype(int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 80) & (pixels[..., 2] < 80)
    green = (pixels[..., 1] > 100) & (pixels[..., 0] < 80)
    left, right = np.split(np.arange(sheet.width), [sheet.width // 2])
    assert not red[:, left].any() and green[:, left].any()
    assert not green[:, right].any()
    assert (red.sum(1) >= SIDE).sum() >= 8, "four rows of the frame above, four below"
    assert (pixels[:, left] == 128).all(2).sum() >= SIDE**2, "nothing is drawn over the picture"
    assert green[:, left].sum(1).max() == round(0.9 * (SIDE - 1)) + 1, "the bar"


def test_rows_of_a_contact_sheet():
    tile = Tile(Image.new("RGB", (5, 9)), "a", "a", 1.0)
    sizes = [contact_sheet([tile] * count, "", columns=4).size for count in (1, 4, 5, 8)]
    assert sizes[0] == sizes[1] and sizes[2] == sizes[3] and sizes[2][1] > sizes[0][1] and sizes[2][0] == sizes[0][0]
