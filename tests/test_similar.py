"""The nearest pictures of a folder, beside the formula; the index kept, updated, damaged and stopped."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, run, run_json
from PIL import Image

import alexnet_np as anp
from alexnet_np import jobs
from alexnet_np.jobs import nearest as module
from alexnet_np.jobs.embedding import embedding_name
from alexnet_np.study.units import activations

GARMENTS = Path(anp.__file__).parent / "assets" / "garments"
CARRIED = "--weights", "FASHION_MNIST_V1", "--backend", "numpy"


@pytest.fixture(scope="module")
def model():
    return anp.alexnet(None, weights="FASHION_MNIST_V1").eval()


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(GARMENTS, tmp_path / "garments"))


def search(model, query, folder, **options):
    files, failures = jobs.find([str(folder)])
    assert not failures
    return jobs.similar(model, str(query), folder, files, backend="numpy", batch_size=3, **options)


@pytest.fixture
def opened():
    """A new network for each search: a job drops the weights of its own once they are packed."""
    return lambda: anp.alexnet(None, weights="FASHION_MNIST_V1").eval()


def by_hand(model, query, files):
    """Cosines in float64, from one picture at a time."""
    name = embedding_name(model)
    vectors = [
        activations(model, anp.preprocess(str(f), model=model))[name].astype(np.float64) for f in [query, *files]
    ]
    return [float(v @ vectors[0] / np.linalg.norm(v) / np.linalg.norm(vectors[0])) for v in vectors[1:]]


def test_the_nearest_by_the_formula_without_the_query_itself(opened, folder, model):
    files = sorted(folder.glob("*.png"))
    query = files[3]
    others = [file for file in files if file != query]
    cosines = by_hand(model, query, others)
    wanted = sorted(zip(cosines, map(str, others), strict=True), reverse=True)[:4]
    found = search(opened(), query, folder, top=4)
    assert [match.file for match in found.matches] == [file for _, file in wanted]
    np.testing.assert_allclose([m.cosine for m in found.matches], [cosine for cosine, _ in wanted], rtol=1e-5)
    assert (found.images, found.kept, found.computed) == (len(files), 0, len(files))


def test_a_query_from_elsewhere_finds_its_copy(opened, folder, tmp_path):
    copy = tmp_path / "copy.png"
    shutil.copy(sorted(folder.glob("*.png"))[5], copy)
    first = search(opened(), copy, folder, top=1).matches[0]
    assert Path(first.file).name == sorted(folder.glob("*.png"))[5].name and first.cosine == pytest.approx(1, abs=1e-6)


def test_the_index_computes_only_what_is_new_or_changed(opened, folder):
    files = sorted(folder.glob("*.png"))
    search(opened(), files[0], folder)
    index, again = folder / module.NAME, search(opened(), files[0], folder)
    assert index.is_file() and (again.kept, again.computed) == (len(files), 0)
    written = index.stat().st_mtime_ns
    assert search(opened(), files[0], folder).matches == again.matches and index.stat().st_mtime_ns == written

    files[1].unlink()
    shutil.copy(files[2], folder / "new.png")
    Image.open(files[4]).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(files[3])
    os.utime(files[3], ns=(1, 1))
    updated = search(opened(), files[0], folder, top=100)
    assert (updated.images, updated.computed) == (len(files), 2)
    fresh = search(opened(), files[0], folder, top=100, index=folder.parent / "fresh.safetensors")
    assert fresh.computed == len(files)
    wanted = {match.file: pytest.approx(match.cosine, abs=1e-6) for match in fresh.matches}
    assert {match.file: match.cosine for match in updated.matches} == wanted


@pytest.mark.parametrize("damage", [b"", b"not an index", None])
def test_an_index_that_is_damaged_or_anothers_is_made_anew(opened, folder, damage):
    query = sorted(folder.glob("*.png"))[0]
    right = search(opened(), query, folder)
    if damage is None:
        other = opened()
        other.classifier[0].weight.data[0, 0] += 1
        assert search(other, query, folder).computed == right.images
    else:
        (folder / module.NAME).write_bytes(damage)
    again = search(opened(), query, folder)
    assert again.computed == right.images and again.matches == right.matches


def test_pictures_that_cannot_be_read_are_remembered_not_tried_again(opened, folder, monkeypatch):
    (folder / "bad.png").write_bytes(b"no picture")
    query = sorted(folder.glob("*.png"))[1]
    found = search(opened(), query, folder)
    assert [Path(failure.file).name for failure in found.failures] == ["bad.png"]
    again = search(opened(), query, folder)
    assert again.computed == 0 and again.failures == found.failures
    shutil.copy(query, folder / "bad.png")
    mended = search(opened(), query, folder, top=1)
    assert mended.computed == 1 and not mended.failures and Path(mended.matches[0].file).name == "bad.png"


def test_stopped_it_keeps_what_is_done(opened, folder):
    files, done = sorted(folder.glob("*.png")), []

    def stop(more):
        done.append(more)
        if sum(done) > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(opened(), files[0], folder, progress=stop)
    again = search(opened(), files[0], folder)
    assert 0 < again.kept == sum(done) < len(files) == again.kept + again.computed


def test_a_vector_of_zeros_is_at_right_angles_to_everything():
    vectors = np.array([[0, 0], [3, 4], [-3, -4]], np.float32)
    assert module.cosines_of(vectors, np.array([3, 4], np.float32)).tolist() == pytest.approx([0, 1, -1])
    assert module.cosines_of(vectors, np.zeros(2, np.float32)).tolist() == [0, 0, 0]


def test_the_command_its_sheet_and_its_json(folder):
    query, sheet = sorted(folder.glob("*.png"))[0], folder.parent / "sheet.png"
    said = run("similar", str(query), str(folder), "--top", "3", "--out", str(sheet), *CARRIED).stdout
    assert [line.split()[1] for line in said.splitlines()] == [
        match["file"] for match in run_json("similar", str(query), str(folder), "--top", "3", *CARRIED)["matches"]
    ]
    with Image.open(sheet) as picture:
        assert picture.mode == "RGB" and picture.width >= 4 * 128
        colours = np.asarray(picture.crop((16, 54, 16 + 128, 54 + 128)))
        assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 20, "the query itself"
    found = run_json("similar", str(query), str(folder), *CARRIED)
    assert found["kept"] == found["images"] and found["index"].endswith(module.NAME)
    assert json.dumps(found) and found["engine"]["backend"] == "numpy"


def test_a_list_beside_a_folder_and_without_one(folder, tmp_path, monkeypatch):
    """What lies in the folder goes by its path below it, the rest by its whole path; twice named counts once."""
    files = sorted(folder.glob("*.png"))
    (tmp_path / "elsewhere").mkdir()
    other = Path(shutil.copy(files[3], tmp_path / "elsewhere" / "other.png"))
    (tmp_path / "list.txt").write_text(f"elsewhere/other.png\n{files[5]}\nnone.png\n")
    monkeypatch.chdir(tmp_path)
    both = "similar", str(files[3]), str(folder), "--files-from", "list.txt", *CARRIED
    found = run_json(*both, code=1)
    assert (found["images"], found["kept"], found["computed"]) == (len(files) + 1, 0, len(files) + 2)
    assert found["matches"][0] == {"file": str(other), "cosine": pytest.approx(1, abs=1e-6)}
    assert [failure["error"] for failure in found["failures"]] == ["no such file"]
    again = run_json(*both, code=1)
    assert again["matches"] == found["matches"] and (again["kept"], again["computed"]) == (len(files) + 2, 0)
    index = "--index", "index.safetensors"
    alone = run_json("similar", str(files[3]), "--files-from", "list.txt", *index, *CARRIED, code=1)
    assert [match["file"] for match in alone["matches"]] == ["elsewhere/other.png", f"garments/{files[5].name}"]
    piped = run("similar", str(files[3]), "--files-from", "-", *index, *CARRIED, input=f"{files[5]}\n".encode())
    assert files[5].name in piped.stdout
    assert "no FOLDER: name the one to look in" in run("similar", str(files[3]), *CARRIED, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["QUERY", "--files-from", "LIST"], "name a place with --index"),
        (["QUERY", "FOLDER", "--files-from", "LIST"], "s3://b/x.png: addresses are for --engine dask"),
        (["nowhere.png", "FOLDER"], "nowhere.png: no such file"),
        (["QUERY", "nowhere"], "nowhere: no such folder; name the one to look in"),
        (["QUERY", "EMPTY"], "no images in this folder"),
        (["-", "FOLDER"], "name a file"),
        (["QUERY", "FOLDER", "--out", "x.txt"], "x.txt"),
        (["QUERY", "FOLDER", "--index", "nowhere/i.safetensors"], "name another place with --index"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, said):
    (folder.parent / "empty").mkdir()
    (folder.parent / "list.txt").write_text("s3://b/x.png\n")
    names = {"QUERY": sorted(folder.glob("*.png"))[0], "FOLDER": folder, "EMPTY": folder.parent / "empty"}
    names["LIST"] = folder.parent / "list.txt"
    assert said in fails("similar", *[str(names.get(a, a)) for a in arguments], *CARRIED)
