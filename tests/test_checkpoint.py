"""Checkpoint files: exact, whole or absent, and never believed when damaged."""

import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from oracles import refused

import alexnet_np as anp
from alexnet_np.training import checkpoint
from alexnet_np.training.checkpoint import Checkpoints

STATE = {"position": {"epoch": 3, "loss": 0.1 + 0.2}, "rates": [1e-300, 0.05], "name": "ünïcode"}


def make_tensors():
    odd = np.array([np.nan, -0.0, np.inf, 5e-324, np.nextafter(1, 2)])
    return {
        "features.0.weight": np.random.default_rng(0).standard_normal((3, 2, 5), dtype=np.float32),
        "odd": odd,
        "empty": np.zeros((0, 4), np.float32),
        "transposed": np.arange(6.0).reshape(2, 3).T,
    }


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_round_trip_to_the_bit(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, make_tensors(), STATE)
    arrays, state = checkpoint.read(path)
    assert state == STATE
    assert sorted(arrays) == sorted(make_tensors())  # the library orders by dtype
    for name, array in make_tensors().items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes(), name
    assert names(tmp_path) == ["a.safetensors"]


def test_the_safetensors_library_agrees(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, make_tensors(), STATE)
    theirs = safetensors.numpy.load_file(path)
    for name, array in make_tensors().items():
        assert theirs[name].tobytes() == array.tobytes() and theirs[name].shape == array.shape
    with safetensors.safe_open(path, "np") as file:
        assert json.loads(file.metadata()["alexnet_np"]).items() >= STATE.items()


def test_every_damaged_byte_and_every_length_is_noticed(tmp_path):
    """Or does no harm, as where the offsets of an empty array are changed."""
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, {"w": np.arange(20, dtype=np.float32), "b": np.zeros(0)}, {"step": 1})
    whole = path.read_bytes()
    damaged = [whole[:i] + bytes([whole[i] ^ 0x11]) + whole[i + 1 :] for i in range(len(whole))]
    harmless = 0
    for i, content in enumerate([*damaged, *(whole[:n] for n in range(len(whole)))]):
        path.write_bytes(content)
        try:
            arrays, state = checkpoint.read(path)
        except anp.CheckpointError as error:
            assert "damaged" in str(error) and str(path) in str(error) and "\n" not in str(error)
        else:
            assert state == {"step": 1} and set(arrays) == {"w", "b"} and arrays["b"].shape == (0,), f"case {i}"
            assert np.array_equal(arrays["w"], np.arange(20)), f"case {i}"
            harmless += 1
    assert harmless < 10


def test_what_is_no_checkpoint(tmp_path):
    with refused(anp.CheckpointError, "No such file"):
        checkpoint.read(tmp_path / "absent.safetensors")
    plain = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(3, np.float32)}, plain)
    with refused(anp.CheckpointError, "not a checkpoint"):
        checkpoint.read(plain)
    with refused(anp.CheckpointError, "no checkpoint here; start without --resume"):
        Checkpoints(tmp_path / "nowhere").load()


def save_some(folder, steps, keep=3):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, {"w": np.full(4, step, np.float32)}, {"step": step})
    return checkpoints


def test_the_last_ones_stay(tmp_path):
    checkpoints = save_some(tmp_path, [0, 5, 20, 100, 99_999_999], keep=2)
    assert [path.name for path in checkpoints.paths()] == ["step-00000100.safetensors", "step-99999999.safetensors"]
    assert checkpoints.load()[1] == {"step": 99_999_999}
    assert len(save_some(tmp_path / "one", [1, 2], keep=1).paths()) == 1


def test_a_damaged_last_one_falls_back(tmp_path):
    checkpoints = save_some(tmp_path, [1, 2, 3])
    newest = checkpoints.paths()[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    tensors, state, problems = checkpoints.load()
    assert state == {"step": 2} and (tensors["w"] == 2).all()
    assert len(problems) == 1 and "step-00000003.safetensors: damaged" in problems[0]
    checkpoints.save(4, {"w": np.zeros(1)}, {"step": 4})  # the damaged one was older: it goes as the others do
    assert checkpoints.load()[1:] == ({"step": 4}, [])


def test_going_back_removes_what_lay_ahead(tmp_path):
    checkpoints = save_some(tmp_path, [1, 2, 30])
    newest = checkpoints.paths()[-1]
    newest.write_bytes(b"")
    checkpoints.save(3, {"w": np.zeros(1)}, {"step": 3})
    assert [path.name[5:13] for path in checkpoints.paths()] == ["00000001", "00000002", "00000003"]


def test_all_damaged(tmp_path):
    checkpoints = save_some(tmp_path, [1, 2])
    for path in checkpoints.paths():
        path.write_bytes(b"x" * 100)
    with refused(anp.CheckpointError, "step-00000002.safetensors: damaged.* none of the 2 checkpoints"):
        checkpoints.load()


def test_a_full_disk_is_one_line_and_leaves_the_others(tmp_path):
    checkpoints = save_some(tmp_path, [1])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may grow beyond this
    try:
        with refused(anp.CheckpointError, "cannot be saved: File too large.*step-00000001.safetensors is intact"):
            checkpoints.save(2, {"w": np.zeros(100_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["step-00000001.safetensors"]
    assert checkpoints.load()[1] == {"step": 1}


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    checkpoints = save_some(tmp_path, [1])

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(1, {"w": np.zeros(1)}, {"step": "overwritten"})
    assert names(tmp_path) == ["step-00000001.safetensors"]
    assert checkpoints.load()[1] == {"step": 1}


def test_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """What makes it survive a power cut: data synced, then renamed, then the folder synced."""
    calls = []
    fsync, replace = os.fsync, type(tmp_path).replace
    opened = lambda fd: str(Path(f"/proc/self/fd/{fd}").readlink())  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(opened(fd)) or fsync(fd))
    monkeypatch.setattr(type(tmp_path), "replace", lambda self, to: calls.append("rename") or replace(self, to))
    checkpoint.write(tmp_path / "a.safetensors", {"w": np.zeros(3)}, {})
    *_, data, renamed, folder = calls
    assert data.endswith(".part") and (renamed, folder) == ("rename", str(tmp_path)) and calls.count(data) == 1
