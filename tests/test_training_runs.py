"""What keeps a run from going wrong in silence: its lock, more epochs, learning that looks broken."""

import math
import subprocess
import sys

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np.training.config import Config
from alexnet_np.training.lock import locked
from alexnet_np.training.loop import Trainer
from alexnet_np.training.metrics import read_events, what_looks_broken

TINY = Config(
    dataset="synthetic", limit=20, image_size=67, width=1 / 32, batch_size=8, epochs=2, lr=0.02, backend="numpy"
)
HOLDER = """
import pathlib, sys, time
from alexnet_np.training.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_and_a_dead_one_taken_over(tmp_path):
    Trainer(TINY, tmp_path).fit()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(anp.CheckpointError, match="another process trains here; wait for it, or choose another"):
            Trainer.resume(tmp_path)
        with pytest.raises(anp.CheckpointError, match="another process trains here"):
            Trainer(TINY, tmp_path).fit()
        assert (tmp_path / "metrics.jsonl").read_bytes() == before
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    Trainer.resume(tmp_path).fit()
    with locked(tmp_path):
        pass


def test_more_epochs_are_those_of_a_longer_run(tmp_path):
    Trainer(TINY, tmp_path / "short").fit()
    resumed = Trainer.resume(tmp_path / "short", {"epochs": 4})
    assert resumed.notices == ["going on to 4 epochs instead of 2"]
    resumed.fit()
    straight = Trainer(Config(**{**vars(TINY), "epochs": 4}), tmp_path / "long")
    straight.fit()
    for name, array in straight.run.model.state_dict().items():
        np.testing.assert_array_equal(resumed.run.model.state_dict()[name], array)
    assert [e["epoch"] for e in read_events(tmp_path / "short" / "metrics.jsonl") if e["kind"] == "epoch"] == [
        1,
        2,
        3,
        4,
    ]
    files = [tmp_path / name / "weights.safetensors" for name in ("short", "long")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_drawn_out_schedule_is_said(tmp_path):
    Trainer(Config(**{**vars(TINY), "schedule": "cosine"}), tmp_path).fit()
    resumed = Trainer.resume(tmp_path, {"epochs": 3})
    assert resumed.notices == ["going on to 3 epochs instead of 2, the schedule 'cosine' drawn out over them"]
    assert resumed.fit()["epoch"] == 3
    with pytest.raises(anp.CheckpointError, match="epochs was 3, not 2"):
        Trainer.resume(tmp_path, {"epochs": 2})


def test_a_network_that_learns_nothing_is_said(tmp_path):
    last = Trainer(Config(**{**vars(TINY), "lr": 1e-6, "limit": 200, "epochs": 1}), tmp_path).fit()
    assert last["notice"].startswith("the network has learned nothing yet: its loss of 2.30")
    assert what_looks_broken({"train_loss": 1.9, "accuracy": 0.1}, 10, Config()) is None
    assert what_looks_broken({"train_loss": 2.3, "accuracy": 0.3}, 10, Config()) is None
    nothing = {"train_loss": math.log(2), "accuracy": 0.5}
    said = what_looks_broken(nothing, 2, Config())
    assert "ln(2) = 0.693" in said
    assert said.endswith("try another lr than 0.01 or --momentum 0.9 or --initialisation kaiming")
    finetuned = Config(dataset="folder", data="x", weights="w.npz", momentum=0.9, lr=0.1)
    assert what_looks_broken(nothing, 2, finetuned).endswith("try another lr than 0.1")


def test_a_loss_that_exploded_though_finite_stops_the_run():
    trainer = Trainer(TINY)
    for name, parameter in trainer.run.model.named_parameters():
        if name.startswith("classifier.6"):
            parameter.data *= 0
            parameter.data[0] = 1e15
    x = np.ones((3, 1, 67, 67), np.float32)
    with pytest.raises(anp.AlexNetError, match=r"the loss is [1-9.e+]*15 at step 1, where guessing gives 2.30"):
        trainer.run.step(x, np.array([1, 2, 3]))
