"""Frozen features are computed once: the same run as with every batch through the whole network, from files or memory,
cut off and resumed; not where images change, layers train or somebody listens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from test_training import TINY, Crash, assert_same_bits, crash_at, weights_of
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np.cli.app import app
from alexnet_np.training import features
from alexnet_np.training.config import Config
from alexnet_np.training.loop import Trainer
from alexnet_np.training.metrics import read_events

FROZEN = dataclasses.replace(
    TINY, backend="numba", width=1 / 8, limit=12, freeze=("features",), augmentation="none", biases="same"
)


def in_every_step(config: Config) -> Trainer:
    """The run as it goes where there is no room for features."""
    with mock.patch.object(features, "MEMORY", 0):
        trainer = Trainer(config)
        trainer.fit()
    assert trainer.run.network is trainer.run.model
    return trainer


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, 1e-5),
        ({"preset": "paper", "dropout": 0.3}, 1e-5),
        ({"backend": "numpy"}, 1e-6),
        ({"dtype": "float64"}, 1e-12),
    ],
    ids=["d2l", "paper", "numpy", "float64"],
)
def test_it_is_the_same_run(tmp_path: Path, changes: dict, bound: float) -> None:
    config = dataclasses.replace(FROZEN, **changes)
    expected, trainer = in_every_step(config), Trainer(config, tmp_path)
    seen: list[Any] = []
    trainer.fit([seen.append])
    assert isinstance(trainer.run.network, features.Head)
    told = [(event["image"], event["images"]) for event in seen if event["kind"] == "gathering"]
    assert told[-1] == (14, 14)  # 12 and 2 to validate on
    first, second = weights_of(trainer), weights_of(expected)
    assert set(first) == set(second)
    for name, array in second.items():
        assert np.abs(first[name] - array).max() <= bound * np.abs(array).max(), name
    assert abs(trainer.last["loss"] - expected.last["loss"]) <= bound * 10
    assert trainer.last["accuracy"] == expected.last["accuracy"]
    assert not (tmp_path / "features").exists(), "they are not wanted any more"


@pytest.mark.parametrize("number", [2, 4, 7])
def test_cut_off_it_ends_in_the_same_bits(tmp_path: Path, number: int) -> None:
    whole = Trainer(FROZEN)
    whole.fit()
    with pytest.raises(Crash):
        Trainer(FROZEN, tmp_path, save_every=0).fit([crash_at(number)])
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "features").glob("*")}
    resumed = Trainer.resume(tmp_path)
    with mock.patch.object(features, "fill", side_effect=features.fill) as fill:
        resumed.fit()
    assert fill.call_count == 2 - len(kept), "what was there is read, not computed"
    assert_same_bits(weights_of(resumed), weights_of(whole))
    assert sum(event["kind"] == "features" for event in read_events(tmp_path / "metrics.jsonl")) >= 1


@pytest.mark.parametrize(
    "changes", [{"augmentation": "mirror"}, {"freeze": ("features.0",)}, {"freeze": ("classifier",)}]
)
def test_not_where_they_change(changes: dict) -> None:
    trainer = Trainer(dataclasses.replace(FROZEN, epochs=1, **changes))
    trainer.fit()
    assert trainer.run.network is trainer.run.model


def test_not_where_somebody_listens() -> None:
    trainer, heard = Trainer(dataclasses.replace(FROZEN, epochs=1)), []
    trainer.run.model.features[3].register_forward_hook(lambda *_: heard.append(1))
    trainer.fit()
    assert trainer.run.network is trainer.run.model and heard


def test_the_files_are_of_these_weights_and_images(tmp_path: Path) -> None:
    trainer = Trainer(FROZEN)
    augment, task = trainer.run.validation_batches.augment, trainer.run.task
    names = {features.identity_of(trainer.run.model, part, augment) for part in (task.train, task.validation)}
    trainer.run.model.features[0].weight.data[0, 0, 0, 0] += 1
    names.add(features.identity_of(trainer.run.model, task.train, augment))
    assert len(names) == 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        (root / name).mkdir()
        for i in range(5):
            pixels = random.integers(0, 60, (80, 90 + i, 3)) + 180 * k
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.jpg")
    return root


def test_finetune_takes_pictures_as_they_are_and_says_so(pictures: Path, tmp_path: Path) -> None:
    anp.weights.write(tmp_path / "start.safetensors", anp.alexnet("torchvision", width=1 / 16, seed=0))
    weights = ["--weights", str(tmp_path / "start.safetensors")]
    arguments = ["finetune", str(pictures), *weights, "--freeze", "features", "--epochs", "2", "--json"]
    shown = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert shown.exit_code == 0, shown.output
    assert "computed once" in shown.stderr and "--augmentation crop" in shown.stderr
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert events[0]["config"]["augmentation"] == "none"
    assert [event["kind"] for event in events].count("features") == 1
    assert {event["engine"] for event in events if event["kind"] in ("start", "features")} == {"plan"}
    cropped = CliRunner().invoke(app, [*arguments, "--augmentation", "crop", "--out", str(tmp_path / "cropped")])
    assert cropped.exit_code == 0 and "computed once" not in cropped.stderr
    assert '"kind": "features"' not in cropped.stdout
