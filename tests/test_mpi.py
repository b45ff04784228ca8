"""`mpirun alexnet train`: the same bits on any number of processes. Skipped where mpirun or mpi4py is missing."""

import json
import shutil

import numpy as np
import pytest
from mpi_runs import MARKS, NETWORK, RECIPE, SECONDS, check_counted, check_equal, end_of, finished, runs, wait_for_step
from PIL import Image

from alexnet_np.training.config import CHOICES
from alexnet_np.weights import read

pytestmark = MARKS
begin = pytest.fixture(runs)


def test_the_same_bits_on_one_two_and_four_processes(tmp_path, begin):
    for processes in (1, 2, 4):
        finished(begin(processes, tmp_path / str(processes), "--shards", "4"))
    check_equal(tmp_path / "1", tmp_path / "2")
    check_equal(tmp_path / "1", tmp_path / "4")
    check_counted(tmp_path / "2", 2)
    check_counted(tmp_path / "4", 4)


# Every augmentation, those of pictures as the recipe has it that is their source: with its mean image, resizing, ties,
# rates of biases. Whoever goes together in the authors' (32 images) lies in several batches, shards and processes.
AUGMENTATIONS = {
    "none": f"{NETWORK} {RECIPE} --augmentation none",
    "mirror": f"{NETWORK} {RECIPE}",
    "crop": "--dataset folder --recipe caffe",
    "paper": "--dataset folder --recipe paper",
    "krizhevsky145": "--dataset folder --recipe krizhevsky145",
}


@pytest.mark.parametrize("augmentation", CHOICES["augmentation"])
def test_every_augmentation_has_the_same_bits(tmp_path, begin, augmentation):
    given = f"{AUGMENTATIONS[augmentation]} --width 0.0625 --batch-size 24 --shards 4"
    if "folder" in given:
        given += f" --data {photographs(tmp_path / 'data')}"
    for processes in (1, 2, 4):
        finished(begin(processes, tmp_path / str(processes), given=given))
    start = json.loads((tmp_path / "1" / "metrics.jsonl").read_text().splitlines()[0])
    assert start["config"]["augmentation"] == augmentation
    assert np.unique(end_of(tmp_path / "1")[0]["momentum.features.0.weight"]).size > 100, "it learns"
    check_equal(tmp_path / "1", tmp_path / "2")
    check_equal(tmp_path / "1", tmp_path / "4")


def photographs(data):
    """A folder of them: 48 to train on, 8 to validate on."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 4)):
        for name in ("cat", "emu"):
            (data / part / name).mkdir(parents=True)
            for i in range(count):
                small = draw.integers(0, 256, (9, 12, 3), np.uint8)
                Image.fromarray(small).resize((300, 270)).save(data / part / name / f"{i}.jpg", quality=90)
    return data


def test_a_run_stopped_by_its_file_goes_on_with_another_number(tmp_path, begin):
    finished(begin(1, tmp_path / "whole", "--shards", "4"))
    out = tmp_path / "run"
    process = begin(2, out, "--shards", "4")
    wait_for_step(out, 1, process)
    (out / "stop").touch()
    _, said = process.communicate(timeout=SECONDS)
    assert said.count("saved; to go on: alexnet train --resume") == 1, said
    assert not (out / "stop").exists()
    finished(begin(4, out, "--shards", "4", "--resume"))
    check_equal(tmp_path / "whole", out)


def test_one_weird_trick_repeats_and_resumes(tmp_path, begin):
    for name in "ab":
        finished(begin(2, tmp_path / name, "--parallel", "weird"))
    check_equal(tmp_path / "a", tmp_path / "b")
    check_counted(tmp_path / "a", 2)
    weights = read(tmp_path / "a" / "weights.safetensors")
    assert weights["classifier.0.weight"].shape == (256, 400), "whole, though each process had half"


def test_two_towers_repeat_and_one_process_goes_on_with_both(tmp_path, begin):
    options = ["--parallel", "towers", "--preset", "paper", "--image-size", "79", "--width", "0.125"]
    for name in "ab":
        finished(begin(2, tmp_path / name, *options))
    check_equal(tmp_path / "a", tmp_path / "b")
    check_counted(tmp_path / "a", 2)
    weights = read(tmp_path / "a" / "weights.safetensors")
    assert weights["features.8.weight"].shape == (48, 32, 3, 3), "whole, though each process had half"
    (tmp_path / "c" / "checkpoints").mkdir(parents=True)
    shutil.copy(tmp_path / "a" / "metrics.jsonl", tmp_path / "c")
    after_one_epoch = sorted((tmp_path / "a" / "checkpoints").glob("step-*.safetensors"))[-2]
    shutil.copy(after_one_epoch, tmp_path / "c" / "checkpoints")
    finished(begin(1, tmp_path / "c", *options, "--resume"))
    for name, array in read(tmp_path / "c" / "weights.safetensors").items():
        assert abs(array - weights[name]).max() <= 1e-4 * abs(array).max(), name


@pytest.mark.parametrize(
    ("processes", "preset", "said"),
    [(4, "paper", "is for 2 processes, one a tower, got 4"), (2, "torchvision", "'torchvision' has one")],
)
def test_no_two_towers_is_said_once(tmp_path, begin, processes, preset, said):
    process = begin(processes, tmp_path / "run", "--parallel", "towers", "--preset", preset)
    _, words = process.communicate(timeout=SECONDS)
    assert process.returncode
    assert words.count("parallel 'towers' is for") == 1 and said in words and "Traceback" not in words
