"""Runs: what they learn, that they repeat to the bit, and that they go on to the same bits wherever they were cut."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from oracles import refused

import alexnet_np as anp
from alexnet_np.data.dataset import ArrayDataset
from alexnet_np.training import checkpoint
from alexnet_np.training.checkpoint import Checkpoints
from alexnet_np.training.config import CHOICES, Config
from alexnet_np.training.interrupt import Stopped
from alexnet_np.training.loop import Trainer
from alexnet_np.training.metrics import MetricsLog, read_events
from alexnet_np.training.run import Run

# Everything that has state: momentum, a schedule, dropout, an order of its own each epoch, augmentation, two groups.
TINY = Config(
    dataset="synthetic",
    limit=20,
    image_size=67,
    width=1 / 32,
    batch_size=8,
    epochs=2,
    lr=0.02,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="one-cycle",
    biases="double",
    augmentation="mirror",
    initialisation="kaiming",
    seed=3,
    backend="numpy",
)
STEPS = 6


class Crash(Exception):
    pass


def crash_at(number):
    """A listener that raises at the event of this number."""
    events = []

    def listen(event):
        events.append(event)
        if len(events) == number:
            raise Crash

    return listen


def weights_of(trainer):
    return {name: array.copy() for name, array in trainer.run.tensors().items()}


def assert_same_bits(first, second):
    assert set(first) == set(second)
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes(), name


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    trainer = Trainer(TINY, folder)
    trainer.fit()
    return weights_of(trainer), [e for e in read_events(folder / "metrics.jsonl") if e["kind"] in ("batch", "epoch")]


def without_times(events):
    return [{k: v for k, v in e.items() if k not in ("images_per_second", "data_wait")} for e in events]


@pytest.mark.parametrize("save_every", [0, 1e9], ids=["every step", "every epoch"])
@pytest.mark.parametrize("number", range(1, 13))
def test_cut_off_anywhere_it_ends_the_same(tmp_path, straight, number, save_every):
    """Events: start, 3 batches, validation, epoch, twice; each is reported before the checkpoint that follows it."""
    trainer = Trainer(TINY, tmp_path, save_every=save_every)
    with pytest.raises(Crash):
        trainer.fit([crash_at(number)])
    if number == 1:  # before the first checkpoint: nothing has happened yet
        resumed = Trainer(TINY, tmp_path)
    else:
        resumed = Trainer.resume(tmp_path, workers=1)
        assert save_every or resumed.run.at.step in (trainer.run.at.step, trainer.run.at.step - 1)
    resumed.fit()
    weights, events = straight
    assert_same_bits(weights_of(resumed), weights)
    again = [e for e in read_events(tmp_path / "metrics.jsonl") if e["kind"] in ("batch", "epoch")]
    assert without_times(again) == without_times(events), "the metrics file has every event once"


@pytest.mark.parametrize("schedule", CHOICES["schedule"])
def test_every_schedule_resumes(tmp_path, schedule):
    milestones = (1, 2) if schedule == "milestones" else ()
    rates = {"schedule": schedule, "step_epochs": 1, "milestones": milestones, "patience": 0}
    config = dataclasses.replace(TINY, **rates, epochs=3, limit=16)
    expected = Trainer(config)
    expected.fit()
    with pytest.raises(Crash):
        Trainer(config, tmp_path, save_every=0).fit([crash_at(8)])  # in the second epoch
    resumed = Trainer.resume(tmp_path)
    assert resumed.run.at.epoch == 1
    resumed.fit()
    assert_same_bits(weights_of(resumed), weights_of(expected))
    assert resumed.run.optimizer.param_groups[1]["lr"] == expected.run.optimizer.param_groups[1]["lr"]


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_the_seed_decides_every_bit(name):
    config = dataclasses.replace(TINY, backend=name, epochs=1)
    runs = []
    for seed, workers in ((3, 1), (3, 4), (4, 1)):
        trainer = Trainer(dataclasses.replace(config, seed=seed), workers=workers)
        trainer.fit()
        runs.append(weights_of(trainer))
    assert_same_bits(runs[0], runs[1])
    assert all(not np.array_equal(runs[0][n], runs[2][n]) for n in runs[0] if n.endswith("weight"))


def test_it_learns(monkeypatch):
    """Ten images, a square in ten places, are learned by heart, with every part of the loop in place."""
    images = np.zeros((10, 67, 67), np.uint8)
    for k in range(10):
        images[k, 6 + 12 * (k // 2) : 30 + 12 * (k // 2), 4 + 30 * (k % 2) : 34 + 30 * (k % 2)] = 255
    squares = ArrayDataset(images, np.arange(10), list("abcdefghij"))
    monkeypatch.setattr("alexnet_np.training.task._small_images", lambda config: (squares, squares))
    changes = {"batch_size": 10, "epochs": 40, "width": 1 / 16, "initialisation": "xavier", "augmentation": "none"}
    result = Trainer(dataclasses.replace(TINY, **changes, dropout=0.0)).fit()
    assert result["loss"] < 0.1 and result["accuracy"] == 1.0


def test_figures_are_what_they_say(tmp_path):
    """The epoch's mean loss and accuracy weigh every image the same, though the last batch is smaller."""
    trainer = Trainer(dataclasses.replace(TINY, epochs=1, schedule="constant"), tmp_path)
    trainer.fit()
    events = read_events(tmp_path / "metrics.jsonl")
    batches, (epoch,) = [e for e in events if e["kind"] == "batch"], [e for e in events if e["kind"] == "epoch"]
    sizes = [8, 8, 4]
    assert epoch["train_loss"] == pytest.approx(sum(n * b["loss"] for n, b in zip(sizes, batches, strict=True)) / 20)
    assert epoch["train_accuracy"] == sum(n * b["accuracy"] for n, b in zip(sizes, batches, strict=True)) / 20
    assert [e["kind"] for e in events] == ["start", *["batch"] * 3, "epoch", "end"]
    assert events[0]["parameters"] == sum(p.data.size for p in trainer.run.model.parameters())
    assert batches[0]["lr"] == 0.02 and 0 <= epoch["data_wait"] < 1
    model = anp.alexnet("d2l", dict(trainer.run.model.state_dict()), width=1 / 32)
    arrays, about = checkpoint.read(tmp_path / "weights.safetensors")
    assert_same_bits(arrays, model.state_dict())
    assert about["result"]["accuracy"] == epoch["accuracy"] and about["config"]["seed"] == 3


def test_frozen_layers_stay_and_a_new_head_starts_anew(tmp_path):
    before = Trainer(dataclasses.replace(TINY, epochs=1), tmp_path)
    before.fit()
    learned = before.run.model.state_dict()
    config = dataclasses.replace(
        TINY, weights=str(tmp_path / "weights.safetensors"), new_head=True, freeze=("features",), epochs=1
    )
    trainer = Trainer(config)
    assert trainer.run.model.state_dict()["classifier.3.weight"].tobytes() == learned["classifier.3.weight"].tobytes()
    assert not np.array_equal(trainer.run.model.state_dict()["classifier.6.weight"], learned["classifier.6.weight"])
    trainer.fit()
    for name, array in trainer.run.model.state_dict().items():
        assert np.array_equal(array, learned[name]) == name.startswith("features"), name


def test_a_resumed_run_needs_its_first_weights_no_more(tmp_path):
    first = tmp_path / "first.safetensors"
    checkpoint.write(first, Trainer(TINY).run.model.state_dict(), {})
    config = dataclasses.replace(TINY, weights=str(first), freeze=("features.0",))
    expected = Trainer(config)
    expected.fit()
    with pytest.raises(Crash):
        Trainer(config, tmp_path / "run").fit([crash_at(7)])
    first.unlink()
    resumed = Trainer.resume(tmp_path / "run", {"weights": str(first)})
    resumed.fit()
    assert_same_bits(weights_of(resumed), weights_of(expected))


def test_a_diverged_run_says_so():
    message = r"the loss is (nan|inf) at step \d+: the run has diverged; .*lower lr than 1e\+30"
    with np.errstate(all="ignore"), refused(anp.AlexNetError, message):
        Trainer(dataclasses.replace(TINY, lr=1e30, schedule="constant", epochs=20)).fit()


# What may have changed since a run began


@pytest.fixture
def begun(tmp_path):
    with pytest.raises(Crash):
        Trainer(TINY, tmp_path, save_every=0).fit([crash_at(4)])  # three checkpoints: of steps 0, 1 and 2
    return tmp_path


def test_a_folder_with_a_run_is_not_overwritten(begun):
    with refused(anp.CheckpointError, "holds a run already; --resume it, or choose another folder"):
        Trainer(TINY, begun).fit()


def test_a_changed_configuration(begun):
    with refused(anp.CheckpointError, r"lr was 0\.02, not 0\.1; epochs was 2, not 1; leave that out to resume"):
        Trainer.resume(begun, {"lr": 0.1, "epochs": 1, "momentum": 0.9})
    assert Trainer.resume(begun, {"lr": 0.02, "batch_size": 8}).run.at.step == 2


def test_changed_data(begun, monkeypatch):
    fewer = ArrayDataset(np.zeros((19, 67, 67), np.uint8), np.arange(19) % 10, list("abcdefghij"))
    monkeypatch.setattr("alexnet_np.training.task._small_images", lambda config: (fewer, fewer))
    with refused(anp.CheckpointError, "the data set has changed: now 10 classes and 19 images, then 10 and 20"):
        Trainer.resume(begun)


def test_a_damaged_last_checkpoint(begun, straight):
    newest = Checkpoints(begun / "checkpoints").paths()[-1]
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    trainer = Trainer.resume(begun)
    assert trainer.run.at.step == 1
    assert len(trainer.notices) == 1 and "step-00000002" in trainer.notices[0]
    assert trainer.notices[0].endswith("going on from the one before")
    trainer.fit()
    assert_same_bits(weights_of(trainer), straight[0])


def test_another_environment_is_said(begun, monkeypatch):
    assert Trainer.resume(begun).notices == []
    monkeypatch.setattr("alexnet_np.training.loop.environment", lambda engine: {"numpy": "9.9", "threads": 64})
    (notice,) = Trainer.resume(begun).notices
    assert f"numpy {np.__version__}, now 9.9" in notice and "threads" in notice


def test_another_version(begun):
    path = Checkpoints(begun / "checkpoints").paths()[-1]
    tensors, state = checkpoint.read(path)
    state["config"]["warmup"] = 3
    checkpoint.write(path, tensors, state)
    with refused(anp.CheckpointError, "another version of this package: warmup"):
        Trainer.resume(begun)


def test_a_full_disk_stops_with_one_line(tmp_path, monkeypatch):
    trainer = Trainer(TINY, tmp_path)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    def listen(event):
        if event["kind"] == "validation":
            monkeypatch.setattr(checkpoint, "write", full)

    with refused(anp.CheckpointError, "step-00000003.*No space left on device; free some space, then --resume"):
        trainer.fit([listen])
    monkeypatch.undo()
    assert Trainer.resume(tmp_path).run.at.step == 0
    log = MetricsLog(Path("/dev/full"))
    with refused(anp.CheckpointError, "/dev/full: cannot be written: No space left on device"):
        log.write({"kind": "batch"})


# Signals


def test_ctrl_c_saves_and_fit_goes_on(tmp_path, straight):
    trainer = Trainer(TINY, tmp_path, save_every=1e9)
    before = signal.getsignal(signal.SIGINT)

    def listen(event):
        if event["kind"] == "batch" and event["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with refused(Stopped, r"stopped in epoch 1 after batch 2 of 3, saved; to go on: alexnet train --resume --out /"):
        trainer.fit([listen])
    assert signal.getsignal(signal.SIGINT) is before
    assert Checkpoints(tmp_path / "checkpoints").load()[1]["position"]["step"] == 2
    trainer.fit()
    assert_same_bits(weights_of(trainer), straight[0])


def test_ctrl_c_while_validating_and_without_a_folder(straight):
    trainer = Trainer(TINY)

    def listen(event):
        if event["kind"] == "batch" and event["step"] == 3:
            threading.Timer(0.0, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(0.05)

    with refused(Stopped, "stopped in epoch 1 after batch 3 of 3; nothing is saved, because no folder was given"):
        trainer.fit([listen])
    trainer.fit()
    assert_same_bits(weights_of(trainer), straight[0])


def test_a_second_ctrl_c_insists():
    def listen(event):
        if event["kind"] == "batch":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        Trainer(TINY).fit([listen])


def test_in_a_thread_there_are_no_signals():
    results = []
    thread = threading.Thread(target=lambda: results.append(Trainer(dataclasses.replace(TINY, epochs=1)).fit()))
    thread.start()
    thread.join()
    assert results[0]["epoch"] == 1


CHILD = """
import sys, time
from pathlib import Path
from alexnet_np.training.config import Config
from alexnet_np.training.checkpoint import Checkpoints
from alexnet_np.training.loop import Trainer
folder = Path(sys.argv[1])
if Checkpoints(folder / "checkpoints").paths():
    trainer = Trainer.resume(folder, save_every=0)
else:
    trainer = Trainer(Config.from_json({config}), folder, save_every=0)
trainer.fit([lambda event: (print(event["kind"], flush=True), time.sleep(0.02))])
"""


def test_killed_at_random(tmp_path, straight):
    """SIGKILL at random moments until a run reaches its end. benchmarks/kill_and_resume.py does it many times over."""
    program = CHILD.format(config=json.loads(json.dumps(TINY.to_json())))
    choose, kills = random.Random(1), 0
    while True:
        child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "start\n"  # from here on, whatever it is doing
        if kills < 4:
            time.sleep(choose.uniform(0, 0.15))
            child.kill()
            kills += child.wait() == -signal.SIGKILL
            child.stdout.close()
        else:
            child.communicate()
            assert child.returncode == 0
            break
    weights, _ = checkpoint.read(tmp_path / "weights.safetensors")
    assert_same_bits(weights, {name: array for name, array in straight[0].items() if not name.startswith("momentum.")})
    assert not list(tmp_path.rglob(".*.part"))


# Configurations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "schedule must be one of constant, step, milestones, plateau, cosine, one-cycle, got"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"width": float("nan")}, "width must be a finite number"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"validation": 1}, "validation must be between 0 and 1"),
        ({"dataset": "folder"}, "dataset 'folder' needs data"),
        ({"data": "x"}, "dataset 'synthetic' is made on the fly"),
        ({"augmentation": "paper"}, "augmentation 'paper' is for folders"),
        ({"dataset": "folder", "data": "x"}, "augmentation 'mirror' is for small images"),
    ],
)
def test_configurations_out_of_range(changes, message):
    with refused(anp.ArgumentError, message):
        dataclasses.replace(TINY, **changes)


def test_a_configuration_survives_json():
    config = dataclasses.replace(TINY, freeze=("features.0", "classifier"), lr=0.1 + 0.2)
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_the_limit_takes_images_evenly():
    run = Run(dataclasses.replace(TINY, limit=10))
    assert np.array_equal(run.task.train.targets, np.arange(10))
    from alexnet_np.training.task import first_images

    whole = ArrayDataset(np.zeros((100, 2, 2), np.uint8), np.repeat(np.arange(10), 10), list("abcdefghij"))
    assert np.array_equal(first_images(whole, 20).targets, np.repeat(np.arange(10), 2))
    assert first_images(whole, 100) is whole
