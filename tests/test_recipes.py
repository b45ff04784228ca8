"""The training of 2012 as data: what each recipe says, and that what it says is done."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from alexnet_np import layers, ops
from alexnet_np.cli.app import app
from alexnet_np.data.augment import IMAGENET_COLOUR, RandomCrop
from alexnet_np.data.dataset import ArrayDataset
from alexnet_np.data.loader import Loader
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.errors import ArgumentError
from alexnet_np.initialisation import initialise
from alexnet_np.models import AlexNet
from alexnet_np.training.building import build_model, build_optimizer, build_schedule, described
from alexnet_np.training.config import CHOICES, Config
from alexnet_np.training.recipes import RECIPES, configured, settings, table
from alexnet_np.training.sgd import SGD

FOLDER = {"dataset": "folder", "data": "somewhere"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_choice_is_a_field_with_a_source(name: str) -> None:
    config = configured(name, **FOLDER)
    for field, choice in RECIPES[name].choices.items():
        assert getattr(config, field) == choice.value
        assert field not in CHOICES or choice.value in CHOICES[field]
        assert len(choice.source) > 5
    assert config.recipe == name
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert configured(name, dataset="synthetic").augmentation == "mirror"


def test_what_tells_them_apart() -> None:
    paper, authors, caffe = (configured(name, **FOLDER) for name in ("paper", "krizhevsky145", "caffe"))
    assert (paper.biases, authors.biases, caffe.biases) == ("same", "held", "double")
    assert (paper.batch_size, authors.batch_size, caffe.batch_size) == (128, 128, 256)
    assert (paper.epochs, authors.epochs, caffe.epochs) == (90, 91, 90)
    assert (authors.milestones, caffe.step_epochs) == ((25, 51, 79), 20)
    assert (paper.preset, authors.preset, caffe.preset) == ("paper", "krizhevsky145", "bvlc")
    assert {row[0] for row in table()} >= {"input", "biases", "schedule", "dropout scaling", "initialisation"}
    assert next(row for row in table() if row[0] == "input")[3] == "227 of 256 warped BGR"


def test_epochs_are_drawn_in_and_options_come_first() -> None:
    short = settings("krizhevsky145", {"epochs": 9, "lr": 0.1})
    assert (short["milestones"], short["epochs"], short["lr"]) == ((2, 5, 8), 9, 0.1)
    assert settings("caffe", {"epochs": 9})["step_epochs"] == 2
    assert settings("krizhevsky145", {"epochs": 1})["milestones"] == (1,)  # nothing is cut before the end
    with pytest.raises(ArgumentError, match="unknown recipe 'googlenet': choose one of paper, krizhevsky145, caffe"):
        settings("googlenet", {})
    with pytest.raises(ArgumentError, match="schedule 'milestones' needs milestones"):
        Config(schedule="milestones")
    with pytest.raises(ArgumentError, match="raw is for small images"):
        Config(raw=True, **FOLDER)


# Initialisation


def test_the_authors_deviations_and_a_narrow_copys() -> None:
    for width in (1.0, 0.25):
        model = AlexNet("mine", *_layers(width), seed=0)
        initialise(model.named_parameters(), 1, "krizhevsky145", width)
        for number, (name, p) in enumerate((n, p) for n, p in model.named_parameters() if n.endswith("weight")):
            std = (0.03 if number in (2, 3, 4) else 0.01) / (1 if number == 0 else width**0.5)
            assert p.data.std() == pytest.approx(std, rel=6 / p.size**0.5), name
        assert [float(p.data[0]) for n, p in model.named_parameters() if n.endswith("bias")] == [0, 1, 0, 1, 1, 1, 1, 0]


def _layers(width: float) -> tuple[list[layers.Layer], layers.Layer, list[layers.Layer]]:
    F = int(64 * width)
    convolutions = [layers.Conv2d(3, F, 3), *(layers.Conv2d(F, F, 3) for _ in range(4))]
    return convolutions, layers.Identity(), [layers.Linear(F, F), layers.Linear(F, F), layers.Linear(F, 100)]


def test_caffenets_biases_are_one() -> None:
    model = AlexNet("mine", *_layers(0.25), seed=0)
    initialise(model.named_parameters(), 1, "caffenet")
    parameters = dict(model.named_parameters())
    assert (parameters["classifier.0.bias"].data == 1).all()
    assert parameters["classifier.0.weight"].data.std() == pytest.approx(0.005, rel=0.1)


# Dropout that scales in testing


class Literal2012(layers.Dropout):
    """The mask alone in training, times 1-p in testing."""

    def compute(self, x: Any) -> tuple[Any, Any]:
        y, cache = super().compute(x)
        return y * (1 - self.p), cache

    def gradients(self, dy: Any, input_grad: bool) -> Any:
        return super().gradients(dy * (1 - self.p), input_grad)


def test_dropout_that_halves_in_testing_is_trained_exactly() -> None:
    config = configured("krizhevsky145", dataset="synthetic", dtype="float64", backend="numpy", width=1 / 16, lr=0.02)
    config = replace(config, preset="d2l", image_size=99, dropout=0.3)
    classes = [str(i) for i in range(5)]
    ours = build_model(config, classes)
    literal = build_model(replace(config, dropout_scaling="training"), classes)
    for i, layer in enumerate(literal.classifier):
        if isinstance(layer, layers.Dropout):
            literal.classifier[i] = made = Literal2012(layer.p, layer.seed)
            made.training = True
    behind = {"classifier.3.weight", "classifier.6.weight"}
    optimizers = [build_optimizer(config, ours), build_optimizer(replace(config, dropout_scaling="training"), literal)]
    rng = np.random.default_rng(0)
    for _ in range(4):
        x, target = rng.standard_normal((3, 1, 99, 99)), rng.integers(0, 5, 3)
        logits = []
        for model, optimizer in zip((ours, literal), optimizers, strict=True):
            model.zero_grad()
            logits.append(model(x))
            _, cache = ops.cross_entropy.forward(logits[-1], target)
            model.backward(ops.cross_entropy.backward(np.ones(()), cache), input_grad=False)
            optimizer.step()
        np.testing.assert_allclose(logits[0], logits[1], rtol=1e-10, atol=1e-12)
    for (name, have), want in zip(ours.named_parameters(), literal.parameters(), strict=True):
        scale = 0.7 if name in behind else 1.0
        np.testing.assert_allclose(have.data, scale * want.data, rtol=1e-10, atol=1e-14, err_msg=name)
    np.testing.assert_allclose(ours.eval()(x), literal.eval()(x), rtol=1e-10, atol=1e-12)


# Rates


def test_rates_over_time() -> None:
    config = configured("krizhevsky145", dataset="synthetic", epochs=9, width=1 / 32, image_size=67)
    model = build_model(config, ["a", "b"])
    optimizer = build_optimizer(config, model)
    schedule = build_schedule(config, optimizer, 10)
    groups = [group["param_names"] for group in optimizer.param_groups]
    (first, first_bias), names = [groups.index([f"features.0.{kind}"]) for kind in ("weight", "bias")], {}
    names = {group[0].rpartition(".")[2]: i for i, group in enumerate(groups) if i not in (first, first_bias)}
    seen = []
    for _ in range(90):
        seen.append([group["lr"] for group in optimizer.param_groups])
        schedule.step()
    weights, biases = ([row[groups.index(group)] for row in seen] for group in (groups[0], groups[names["bias"]]))
    assert "features.4.weight" in groups[0]
    for epochs, rate in ((range(2), 0.01), (range(2, 5), 1e-3), (range(5, 8), 1e-4), (range(8, 9), 1e-5)):
        assert all(weights[10 * e + i] == pytest.approx(rate) for e in epochs for i in range(10))
    assert set(biases) == {0.02}
    for i, before in ((first, weights), (first_bias, biases)):  # conv 1: 71 of 91 epochs are 7 of 9
        assert [row[i] for row in seen[:70]] == before[:70] and not any(row[i] for row in seen[70:])
    assert optimizer.param_groups[names["bias"]]["weight_decay"] == 0
    scaled = next(g for g in optimizer.param_groups if g["param_names"][0].startswith("classifier"))
    assert scaled["weight_decay"] == pytest.approx(4 * 5e-4)


def test_held_biases_keep_their_rate_on_every_schedule() -> None:
    model = AlexNet("mine", *_layers(0.25), seed=0)
    for name in CHOICES["schedule"]:
        config = Config(schedule=name, biases="held", milestones=(1,), epochs=4, patience=0, step_epochs=1)
        optimizer = build_optimizer(config, model)
        schedule = build_schedule(config, optimizer, 2)
        for _ in range(7):
            assert optimizer.param_groups[1]["lr"] == 0.02
            schedule.step(1.0) if name == "plateau" else schedule.step()  # type: ignore[call-arg]
        assert name == "constant" or optimizer.param_groups[0]["lr"] != 0.01


def test_milestones_are_torchs() -> None:
    from alexnet_np.training.schedules import MultiStepLR

    ours = SGD(layers.Linear(2, 2, seed=0).named_parameters(), lr=0.3)
    theirs = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.3)
    schedule = MultiStepLR(ours, [7, 3], 0.5)
    reference = torch.optim.lr_scheduler.MultiStepLR(theirs, [3, 7], 0.5)
    for _ in range(10):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
        theirs.step()
        schedule.step()
        reference.step()


# Images


def test_images_go_together() -> None:
    """Crop and mirror are one draw for so many images of an epoch's order, wherever batches and threads cut it."""
    recipe = Preprocessing(resize=12, crop=8, mode="RGB", scale=1, mean=(0, 0, 0), std=(1, 1, 1))
    gradient = np.arange(144, dtype=np.uint8).reshape(12, 12, 1).repeat(3, 2)
    dataset = ArrayDataset(np.repeat(gradient[None], 50, 0), np.arange(50) % 2, ["a", "b"])
    for batch, start in ((7, 0), (50, 0), (10, 2)):
        augment = RandomCrop(recipe, together=8)
        loader = Loader(dataset, batch, augment=augment, shuffle=True, seed=3)
        x = np.concatenate([x for x, _ in loader.epoch(1, start)])
        places = x[:, 0, 0, [0, -1]]  # the crop's corners say where it is, and whether it is mirrored
        first = batch * start
        groups = [
            set(map(tuple, places[max(0, i - first) : i + 8 - first].tolist())) for i in range(first // 8 * 8, 50, 8)
        ]
        assert all(len(group) == 1 for group in groups)
        assert len(set.union(*groups)) > 2
    alone = Loader(dataset, 50, augment=RandomCrop(recipe), shuffle=True, seed=3)
    ((x, _),) = alone.epoch(1)
    assert len(set(map(tuple, x[:8, 0, 0, [0, -1]].tolist()))) > 2


def test_the_authors_divide_by_1_1_after_the_noise() -> None:
    recipe = Preprocessing(resize=12, crop=8, mode="RGB", scale=1, mean=(9, 8, 7), std=(1, 1, 1))
    pixels, u = np.full((12, 12, 3), 100, np.uint8), np.random.default_rng(0).random(7)
    rows = [np.empty((3, 8, 8)) for _ in range(2)]
    RandomCrop(recipe, colour=IMAGENET_COLOUR)(pixels, u, rows[0])
    RandomCrop(recipe, colour=IMAGENET_COLOUR, divisor=1.1)(pixels, u, rows[1])
    np.testing.assert_allclose(rows[1], rows[0] / 1.1)


# The command


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)), prog_name="alexnet")


def test_the_recipes_side_by_side() -> None:
    result = run("train", "--recipe", "help")
    assert result.exit_code == 0
    for words in (
        "25, 51, 79",
        "biases",
        "held",
        "227 of 256 warped BGR",
        "Weights::update",
        "solver.prototxt",
        "sec. 5",
        "standard deviations along the components",
        "divided by 1.1",
        "make-data/input_meta",
    ):
        assert words in result.output


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_by_a_recipe(tmp_path: Any, name: str) -> None:
    out = tmp_path / name
    small = ("--dataset", "synthetic", "--limit", 20, "--width", 1 / 32, "--image-size", 67, "-e", 1, "-b", 10)
    result = run("train", "--recipe", name, "--out", out, *small)
    assert result.exit_code == 0, result.output
    event = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    config = Config.from_json(event["config"])
    chosen = settings(name, {"epochs": 1, "batch_size": 10})
    for field in ("preset", "initialisation", "biases", "rule", "schedule", "dropout_scaling", "momentum", "recipe"):
        assert getattr(config, field) == chosen[field]
    assert (config.batch_size, config.epochs, config.raw) == (10, 1, True)
    assert described(config, ["a"]).preprocessing.scale == 1
