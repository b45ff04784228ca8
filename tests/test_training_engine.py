"""Who computes a run's steps: a training plan or layer by layer. Both learn the same, resume to the same bits, and say
who they are; on the GPU, under the shim, the last and smaller batch of an epoch has a plan of its own."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from unittest import mock

import numpy as np
import pytest
from cuda_shim import DeviceArray, to_device
from cuda_shim.machines import machine_called
from oracles import refused
from test_training import TINY, Crash, assert_same_bits, crash_at, weights_of
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np.cli.app import app
from alexnet_np.training import evaluation, stepping
from alexnet_np.training.loop import Trainer
from alexnet_np.training.metrics import read_events
from alexnet_np.training.stepping import Stepper

PLANNED = dataclasses.replace(TINY, backend="numba", width=1 / 8, limit=12)  # batches of 8 and of 4


@pytest.mark.parametrize(
    ("changes", "engine"),
    [({}, "plan"), ({"backend": "numpy"}, "eager"), ({"dtype": "float64"}, "eager"), ({"preset": "paper"}, "plan")],
)
def test_the_kernels_are_planned_and_the_arrays_are_not(changes: dict, engine: str) -> None:
    assert Trainer(dataclasses.replace(PLANNED, **changes)).run.engine == engine


def test_hooks_are_heard() -> None:
    trainer, heard = Trainer(dataclasses.replace(PLANNED, epochs=1)), []
    trainer.run.model.features[0].register_forward_hook(lambda layer, x, y: heard.append(len(y)))
    assert trainer.run.engine == "eager"
    trainer.fit()
    assert heard[:2] == [8, 4]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"preset": "krizhevsky145", "label_smoothing": 0.1, "rule": "paper"},
        {"activation": "tanh", "pooling": "plain", "nesterov": True, "biases": "same"},
        {"freeze": ("features",), "schedule": "constant", "momentum": 0.0},
    ],
    ids=["d2l", "paper's rule", "tanh, nesterov", "frozen"],
)
def test_both_learn_the_same(changes: dict) -> None:
    ends = []
    for engine in ("plan", "eager"):
        trainer = Trainer(dataclasses.replace(PLANNED, epochs=1, **changes))
        if engine == "eager":
            trainer.run.model.features.register_forward_hook(lambda *_: None)
        assert trainer.run.engine == engine
        trainer.fit()
        ends.append((weights_of(trainer), trainer.last))
    (planned, last), (eager, other) = ends
    assert set(planned) == set(eager)
    for name, array in eager.items():
        assert np.abs(planned[name] - array).max() <= 1e-4 * np.abs(array).max(), name
    assert abs(last["train_loss"] - other["train_loss"]) <= 1e-5 and last["train_accuracy"] == other["train_accuracy"]
    assert abs(last["loss"] - other["loss"]) <= 1e-4 * other["loss"]


@pytest.mark.parametrize(("backend", "plans"), [("numba", 2), ("numpy", 0)])
def test_validation_goes_through_a_plan_of_the_weights_as_they_are(backend: str, plans: int) -> None:
    """One an epoch, dropped again; its logits are the network's own."""
    trainer, compiled = Trainer(dataclasses.replace(PLANNED, backend=backend, epochs=2)), []

    def compile_plan(model: Any, most: int, **options: Any) -> Any:
        compiled.append((most, options))
        return anp.compile(model, most, **options)

    with mock.patch.object(evaluation, "compile_plan", compile_plan):
        trainer.fit()
    assert len(compiled) == plans and all(most == 8 for most, _ in compiled)
    run = trainer.run
    by_layers = evaluation.evaluate(run.model, run.validation_batches.epoch(0), len(run.task.classes))
    assert abs(by_layers.loss - trainer.last["loss"]) <= 1e-5 * by_layers.loss
    assert run.model.training


@pytest.mark.parametrize("number", [1, 2, 3, 6, 8])
def test_cut_off_anywhere_it_ends_in_the_same_bits(tmp_path: Any, number: int) -> None:
    whole = Trainer(PLANNED)
    whole.fit()
    with pytest.raises(Crash):
        Trainer(PLANNED, tmp_path, save_every=0).fit([crash_at(number)])
    resumed = Trainer(PLANNED, tmp_path) if number == 1 else Trainer.resume(tmp_path, workers=1)
    resumed.fit()
    assert_same_bits(weights_of(resumed), weights_of(whole))


def test_the_record_says_who_computed(tmp_path: Any) -> None:
    small = {"limit": "8", "image-size": "67", "width": "0.125", "batch-size": "4", "epochs": "1"}
    options = [word for name, value in small.items() for word in (f"--{name}", value)]
    arguments = ["train", "--dataset", "synthetic", *options, "--out", str(tmp_path / "run"), "--json"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    assert json.loads(shown.stdout.splitlines()[0])["environment"]["engine"] == "plan"
    assert read_events(tmp_path / "run" / "metrics.jsonl")[0]["environment"]["engine"] == "plan"


def test_going_on_by_another_engine_is_said(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Crash):
        Trainer(PLANNED, tmp_path, save_every=0).fit([crash_at(4)])
    monkeypatch.setattr(stepping, "ARRAYS", ("numba",))
    assert any("engine plan, now eager" in notice for notice in Trainer.resume(tmp_path).notices)


def test_a_diverged_run_says_so_and_keeps_its_last_checkpoint(tmp_path: Any) -> None:
    config = dataclasses.replace(PLANNED, lr=1e30, schedule="constant", epochs=20)
    with np.errstate(all="ignore"), refused(anp.AlexNetError, r"the loss is .* at step \d+: the run has diverged; "):
        Trainer(config, tmp_path).fit()
    kept = Trainer.resume(tmp_path)
    assert all(np.isfinite(array).all() for array in weights_of(kept).values())


@pytest.mark.parametrize("rule", ["torch", "paper"])
def test_on_the_gpu_steps_are_planned_by_size_of_batch(rule: str) -> None:
    """Against the array operations in float64."""
    models = [anp.alexnet("torchvision", width=1 / 16, num_classes=10, seed=3, dtype=d) for d in ("float32", "float64")]
    double = models[1].train()

    def beside(x: Any, like: Any) -> Any:
        return to_device(x) if isinstance(like, DeviceArray) else x

    on_gpu = mock.patch.object(stepping, "on_gpu", lambda x: isinstance(x, DeviceArray))
    with machine_called("shim") as machine, on_gpu, mock.patch.object(stepping, "beside", beside):
        machine.move(models[0].train())
        steppers = []
        for model, backend in zip(models, ("cuda", "cupy"), strict=True):
            optimizer = anp.SGD(model.named_parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4, rule=rule)
            steppers.append(Stepper(model, optimizer, backend, 5, 0.1))
        assert [stepper.engine for stepper in steppers] == ["plan", "eager"]
        rng = np.random.default_rng(0)
        for count in (5, 3, 5):
            x, target = rng.standard_normal((count, 3, 67, 67)).astype(np.float32), rng.integers(0, 10, count)
            done, expected = (
                steppers[0](x, target, lambda _: None),
                steppers[1](x.astype(float), target, lambda _: None),
            )
            assert abs(done.loss - expected.loss) < 1e-5 and done.correct == expected.correct
        for (name, p), q in zip(models[0].named_parameters(), double.parameters(), strict=True):
            assert np.abs(machine.fetch(p.data) - q.data).max() <= 1e-5 * np.abs(q.data).max(), name
