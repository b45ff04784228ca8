"""What excites units most, beside a loop that runs one picture at a time and keeps everything; kills, and the sheet."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, run, run_json
from PIL import Image

import alexnet_np as anp
from alexnet_np import jobs
from alexnet_np.cli.patches import parse_units
from alexnet_np.data.preprocess import read_pixels
from alexnet_np.identity import recipe_of
from alexnet_np.jobs import exciting
from alexnet_np.study.contact_sheet import GAP, GROOVE, LINE
from alexnet_np.study.patches import CELL, find_patches, fitted, sheet
from alexnet_np.study.units import activations

GARMENTS = Path(anp.__file__).parent / "assets" / "garments"
CARRIED = "--weights", "FASHION_MNIST_V1"


@pytest.fixture(scope="module")
def model():
    return anp.alexnet(None, weights="FASHION_MNIST_V1").eval()


@pytest.fixture(scope="module")
def files():
    return sorted(map(str, GARMENTS.iterdir()))


@pytest.fixture(scope="module")
def every(model, files):
    """layer -> its output for each file."""
    found = [activations(model, anp.preprocess(file, model=model)) for file in files]
    return {name: np.stack([each[name] for each in found]) for name in ("features.0", "features.8", "classifier.6")}


def by_hand(outputs, units, top):
    """[(value, file, place), ...] of each unit, the largest first."""
    listed = []
    for unit in units:
        found = []
        for number, output in enumerate(outputs):
            numbers = np.atleast_1d(output[unit]).ravel().tolist()
            value = max(numbers)
            found.append((value, number, numbers.index(value)))
        listed.append(sorted(found, key=lambda one: -one[0])[:top])
    return listed


def excite(model, files, layer, units, out, **options):
    return jobs.excite(model, files, layer, units, out, **{"backend": "numpy", "batch_size": 3, "top": 4, **options})


@pytest.mark.parametrize("layer", ["features.0", "features.8", "classifier.6"])
def test_the_best_are_those_of_a_loop(model, files, every, layer, tmp_path):
    units = [5, 0, 9]
    made = excite(model, files, layer, units, tmp_path / "x.png")
    for row, expected in enumerate(by_hand(every[layer], units, 4)):
        values, numbers, places = zip(*expected, strict=True)
        assert np.allclose(made.best.values[row], values, rtol=1e-5)
        assert made.best.files[row].tolist() == list(numbers)
        if layer == "features.8":  # where no two places have the same number
            assert made.best.places[row].tolist() == list(places)
    assert (made.failures, made.kept) == ([], 0)
    assert list(tmp_path.iterdir()) == []


def test_by_plans_as_by_the_array_operations(model, files, every, tmp_path):
    made = excite(model, files, "features.8", range(32), tmp_path / "x.png", backend="numba", batch_size=7)
    assert made.engine["engine"] == "plan"
    for row, expected in enumerate(by_hand(every["features.8"], range(32), 4)):
        assert np.allclose(made.best.values[row], [one[0] for one in expected], rtol=1e-3, atol=1e-4)


def test_the_first_of_equals_and_what_cannot_be_read(model, files, tmp_path):
    twins = [str(shutil.copy(files[0], tmp_path / f"{n}.png")) for n in range(4)]
    broken = tmp_path / "2b.png"
    broken.write_text("not a picture")
    listed = [*twins[:3], str(broken), twins[3]]
    made = excite(model, listed, "features.8", [1], tmp_path / "x.png", top=9, batch_size=2)
    assert made.best.files[0].tolist() == [0, 1, 2, 4, -1, -1, -1, -1, -1]
    assert np.isneginf(made.best.values[0, 4:]).all()
    assert [failure.file for failure in made.failures] == [str(broken)]


def test_a_unit_that_is_off_is_excited_by_nothing(files, tmp_path):
    """After a ReLU 0 means off, before it a number like any other."""
    model = anp.alexnet(None, weights="FASHION_MNIST_V1").eval()
    model.features[8].bias.data[3] = -1e9
    off = excite(model, files, "features.9", [3, 4], tmp_path / "x.png")
    assert np.isneginf(off.best.values[0]).all() and np.isfinite(off.best.values[1]).all()
    assert find_patches(model, "features.9", [3], files, off.best, (224, 224)) == []
    assert np.isfinite(excite(model, files, "features.8", [3], tmp_path / "x.png").best.values).all()


def test_rows_that_are_not_numbers_count_for_nothing():
    best = jobs.Best.none(2, 3)
    x = np.array([[[[1.0, np.nan]], [[2.0, 3.0]]], [[[0.0, -1.0]], [[-2.0, -3.0]]]], np.float32)
    best = best.with_rows([7, 9], exciting.largest(x, lambda x: x, np.array([0, 1])))
    assert np.array_equal(best.values, [[-np.inf] * 3, [3.0, -2.0, -np.inf]])
    assert best.files[1, :2].tolist() == [7, 9] and best.places[1, :2].tolist() == [1, 0]


# Stopped, killed, resumed


class Killed(BaseException):
    """No exception that anybody handles, as a kill is none."""


@pytest.mark.parametrize("how", [KeyboardInterrupt, Killed])
def test_a_job_that_was_stopped_goes_on_to_the_same_end(model, files, tmp_path, monkeypatch, how):
    monkeypatch.setattr(exciting, "PART", 4)
    out = tmp_path / "x.png"
    whole = excite(model, files, "features.8", range(8), out, resume=True)
    seen, exciting_state = [0], out.with_name("x.png.state")
    exciting.clear(out)

    def stop(done):
        seen[0] += done
        if seen[0] >= 11:
            raise how

    with pytest.raises(jobs.Interrupted if how is KeyboardInterrupt else Killed):
        excite(model, files, "features.8", range(8), out, progress=stop)
    assert exciting_state.exists()
    with pytest.raises(anp.AlexNetError, match="x.png.state: holds what an earlier job has done; go on with --resume"):
        excite(model, files, "features.8", range(8), out)
    told = []
    again = excite(model, files, "features.8", range(8), out, resume=True, progress=told.append)
    assert again.kept == told[0] >= 8 and sum(told) == len(files)
    for name, array in vars(whole.best).items():
        assert np.array_equal(vars(again.best)[name], array)
    (tmp_path / ".x.png.state.0123abcd.part").touch()  # of a process that was killed while it wrote
    exciting.clear(out)
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_job_left_is_good_for_its_own_files_and_weights_alone(model, files, tmp_path, monkeypatch):
    monkeypatch.setattr(exciting, "PART", 4)
    out = tmp_path / "x.png"
    mine = [str(shutil.copy(file, tmp_path / f"{n:02}.png")) for n, file in enumerate(files)]

    def again(*, model=model, files=mine, layer="features.8", units=(1, 2), top=4):
        return excite(model, files, layer, units, out, top=top, resume=True).kept

    assert again(files=mine[:12]) == 0
    assert again(files=mine) == 12  # more pictures behind those that were seen
    assert again(files=mine) == 20
    assert again(layer="features.6") == 0
    assert again() == 0
    assert again(units=(1, 3)) == 0
    assert again(units=(1, 3), top=5) == 0
    other = anp.alexnet(None, weights="FASHION_MNIST_V1").eval()
    other.classifier[0].weight.data[0, 0] += 1
    assert again(units=(1, 3), top=5, model=other) == 0
    shutil.copy(files[3], mine[0])
    assert again(units=(1, 3), top=5, model=other) == 0
    out.with_name("x.png.state").write_bytes(b"not a state")
    assert again(units=(1, 3), top=5, model=other) == 0


def test_a_file_is_looked_at_once_however_often_the_state_is_written(model, files, tmp_path, monkeypatch):
    monkeypatch.setattr(exciting, "PART", 2)
    looked = []
    monkeypatch.setattr(exciting, "stamp", lambda file: looked.append(file) or ())
    out = tmp_path / "x.png"
    excite(model, files, "features.8", [1], out)
    assert looked == files
    looked.clear()
    assert excite(model, files, "features.8", [1], out, resume=True).kept == len(files)
    assert looked == files


# The sheet


def test_patches_lie_where_they_were_seen(model, files, every, tmp_path):
    recipe = recipe_of(model)
    made = excite(model, files, "features.8", [7, 2], tmp_path / "x.png", top=3)
    patches = find_patches(model, "features.8", [7, 2], files, made.best, (224, 224))
    assert [(patch.unit, patch.rank) for patch in patches] == [(7, 0), (7, 1), (7, 2), (2, 0), (2, 1), (2, 2)]
    for patch in patches:
        output = every["features.8"][files.index(patch.file)]
        assert output[patch.at] == pytest.approx(patch.value, rel=1e-5) == output[patch.unit].max()
        assert patch.field == anp.study.receptive_field(model, "features.8", patch.at, 224)
    ticks = []
    drawn = sheet(patches, {7: "7", 2: "2"}, 3, "title", recipe, ticks.append)
    assert sum(ticks) == len({patch.file for patch in patches})
    assert drawn.size[0] == GAP + 2 * (200 + GAP)
    for patch in patches:
        top, bottom, left, right = patch.field
        crop = fitted(read_pixels(patch.file, recipe), patch.field)
        assert max(crop.size) == CELL - 2
        assert crop.width / crop.height == pytest.approx((right - left) / (bottom - top), rel=0.02)
        x = GAP + [7, 2].index(patch.unit) * (200 + GAP) + patch.rank % 2 * CELL + (CELL - 2 - crop.width) // 2
        y = GAP + 2 * LINE + LINE + 4 + patch.rank // 2 * CELL + (CELL - 2 - crop.height) // 2
        assert np.array_equal(drawn.crop((x, y, x + crop.width, y + crop.height)), crop)


def test_a_patch_is_those_pixels(rng):
    pixels = rng.integers(0, 256, (224, 224, 3), np.uint8)
    found = np.asarray(
        fitted(pixels, anp.study.receptive_field(anp.alexnet("paper", width=1 / 16), "features.0", (0, 3, 5), 224))
    )
    assert found.shape == (CELL - 2, CELL - 2, 3)
    assert np.array_equal(
        found[::7, ::7][:10, :10], pixels[12:23, 20:31][np.arange(10) * 7 * 11 // 70][:, np.arange(10) * 7 * 11 // 70]
    )


def test_a_picture_that_is_gone_leaves_its_place_empty(model, files, tmp_path):
    mine = [str(shutil.copy(files[0], tmp_path / "gone.png"))]
    made = excite(model, mine, "features.8", [1], tmp_path / "x.png")
    patches = find_patches(model, "features.8", [1], mine, made.best, (224, 224))
    (tmp_path / "gone.png").unlink()
    drawn = sheet(patches, {1: "1"}, 1, "title", recipe_of(model))
    middle = drawn.getpixel((GAP + CELL // 2, GAP + 3 * LINE + CELL // 2))
    assert middle == tuple(int(GROOVE[i : i + 2], 16) for i in (1, 3, 5))


# alexnet patches


def test_the_command(tmp_path, every, files):
    out = tmp_path / "sheet.png"
    found = run_json("patches", GARMENTS, *CARRIED, "--layer", "features.8", "--units", "3,7-8", "--top", 2, "-o", out)
    assert [unit["unit"] for unit in found["units"]] == [3, 7, 8] and found["images"] == len(files)
    for unit, expected in zip(found["units"], by_hand(every["features.8"], [3, 7, 8], 2), strict=True):
        assert [patch["file"] for patch in unit["patches"]] == [files[one[1]] for one in expected]
        assert [patch["value"] for patch in unit["patches"]] == pytest.approx([one[0] for one in expected], rel=1e-3)
    with Image.open(out) as drawn:
        assert drawn.size == (GAP + 3 * (200 + GAP), GAP + 2 * LINE + 2 * CELL + LINE + 4 + GAP)
    said = run("patches", GARMENTS, *CARRIED, "--layer", "classifier.6", "--out", out).stdout
    assert said == f"{out}: classifier.6, 10 units, 90 patches of 20 pictures\n"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_the_command_killed_goes_on_to_the_same_sheet(tmp_path, rng):
    """By SIGKILL, which nobody hears of, once it has left something."""
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(1500):
        Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(folder / f"{n:04}.png")
    typed = ["patches", str(folder), *CARRIED, "--layer", "features.10", "--batch-size", "8", "--backend", "numba"]
    whole, out = tmp_path / "whole.png", tmp_path / "killed.png"
    expected = run_json(*typed, "--out", whole)
    started = "from alexnet_np.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", started, *typed, "--out", str(out)])
    while not out.with_name("killed.png.state").exists():
        assert process.poll() is None, "it was done before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not out.exists()
    assert "go on with --resume" in fails(*typed, "--out", out)
    found = run_json(*typed, "--out", out, "--resume")
    assert 0 < found["kept"] < 1500 and expected["kept"] == 0
    assert found["units"] == expected["units"]
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.png", "many", "whole.png"]


def test_ctrl_c_says_what_is_kept(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise jobs.Interrupted(512, 1500, tmp_path / "x.png.state")

    monkeypatch.setattr("alexnet_np.jobs.excite", interrupted)
    result = run("patches", GARMENTS, *CARRIED, "-l", "features.8", "-o", tmp_path / "x.png", code=130)
    assert result.stderr == (
        f"alexnet: stopped: 512 of 1500 images are kept in {tmp_path}/x.png.state; the same command with --resume goes "
        "on\n"
    )


def test_files_that_cannot_be_read_are_listed(tmp_path):
    shutil.copytree(GARMENTS, tmp_path / "some")
    (tmp_path / "some" / "broken.png").write_text("not a picture")
    out = tmp_path / "sheet.png"
    result = run("patches", tmp_path / "some", *CARRIED, "-l", "features.8", "-o", out, code=1)
    assert "144 patches of 20 pictures" in result.stdout
    assert "broken.png: not an image" in result.stderr and result.stderr.count("\n") == 1


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    out = tmp_path / "sheet.png"
    (tmp_path / "empty").mkdir()
    carried = "patches", GARMENTS, *CARRIED, "--out", out
    assert "did you mean features.8" in fails(*carried, "--layer", "feature.8")
    assert "features.0 has 12 units, 0 to 11" in fails(*carried, "--layer", "features.0", "--units", "12")
    assert "numbers and ranges, as in 0-15,40; or all" in fails(*carried, "--layer", "features.0", "--units", "a")
    assert "numbers and ranges" in fails(*carried, "--layer", "features.0", "--units", "3-")
    assert "has 12 units" in fails(*carried, "--layer", "features.0", "--units", "5-3")
    with pytest.raises(anp.ArgumentError, match="4096 of them; a sheet holds 1024"):
        parse_units("all", "classifier.1", 4096)
    with pytest.raises(anp.ArgumentError, match="has 12 units"):
        parse_units("0-99999999999", "features.0", 12)
    assert "no images in this folder" in fails("patches", tmp_path / "empty", *CARRIED, "-l", "features.0", "-o", out)
    assert "no such file or folder" in fails("patches", tmp_path / "no", *CARRIED, "-l", "features.0", "-o", out)
    assert "a picture is written as" in fails(
        "patches", GARMENTS, *CARRIED, "-l", "features.0", "-o", tmp_path / "x.svg"
    )
    assert "name files" in fails("patches", "-", *CARRIED, "-l", "features.0", "-o", out)
    (tmp_path / "folder.png").mkdir()
    to_folder = "patches", GARMENTS, *CARRIED, "-l", "features.0", "-o", tmp_path / "folder.png"
    assert "cannot be written" in fails(*to_folder)
    assert not out.exists()
