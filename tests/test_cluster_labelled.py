"""`evaluate` and `similar` on Dask: one machine's numbers to the last digit, from parts that are kept."""

from __future__ import annotations

import json
import shutil

import clusters
import numpy as np
import pytest
from command_line import fails, run, run_json

import alexnet_np as anp
from alexnet_np.data.image_folder import ImageFolder
from alexnet_np.identity import recipe_of
from alexnet_np.jobs import store
from alexnet_np.jobs.labelled import evenly, list_labelled, of_dataset
from alexnet_np.training.task import first_images

two_workers, network = clusters.two_workers, clusters.network
parquet = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")
CLASSES, EACH, PART = ["cat", "dog", "emu"], 7, 5
BAD = "dog/3.png"


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("torchvision", width=1 / 16, num_classes=len(CLASSES), seed=0).eval()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """val/ with a folder a class; one picture is none."""
    names = [f"val/{name}/{i}.png" for name in CLASSES for i in range(EACH)]
    return clusters.write_pictures(tmp_path_factory.mktemp("photographs"), names, f"val/{BAD}")


def on_dask(where, out):
    return "--engine", "dask", "--out", out, "--scheduler", where.scheduler, "--part-size", PART


@pytest.mark.parametrize("crops", [(), ("--ten-crop",)], ids=["one crop", "ten crops"])
def test_evaluate_has_the_numbers_of_one_machine(crops, network, photographs, two_workers, tmp_path):
    given = ("evaluate", network, "--data", photographs, "--backend", "numba", *crops)
    wanted = run_json(*given)
    found = run_json(*given, *on_dask(two_workers, tmp_path / "judged"), code=1)
    for key in ("images", "loss", "top1", "top5", "crops", "classes", "confusion"):
        assert found[key] == wanted[key], key
    assert (found["parts"], found["computed"], wanted["images"]) == (5, 5, 20)
    assert [failure["file"] for failure in found["failures"]] == [str(photographs / "val" / BAD)]
    again = run_json(*given, *on_dask(two_workers, tmp_path / "judged"), code=1)
    assert again["computed"] == 0 and again["loss"] == wanted["loss"]


def test_a_row_of_an_evaluation_and_what_decides_it(network, photographs, two_workers, tmp_path, model):
    out = tmp_path / "judged"
    given = ("evaluate", network, "--data", photographs, "--backend", "numba", "--limit", 9)
    text = run(*given, *on_dask(two_workers, out), code=0).stdout
    assert text.split()[:2] == ["images", "9,"]
    row = parquet.read_table(out).to_pylist()[4]
    assert row["file"] == str(photographs / "val" / "dog" / "2.png") and row["class"] == 1
    with anp.use_backend("numba"):
        logits = model(anp.preprocess(row["file"], model=model)[None])
    scores = anp.ops.log_softmax.forward(logits.astype(np.float64))[0][0]
    assert row["predicted"] == scores.argmax() and row["in_top5"] is True
    assert row["log_probability"] == pytest.approx(scores[1], abs=1e-5)
    assert store.about(str(out), "part-000001.parquet")["job"] == "evaluate"
    crops = run_json(*given, "--ten-crop", *on_dask(two_workers, out))
    assert crops["computed"] == 2


def test_labels_below_an_address_are_those_of_the_folder(photographs):
    memory = fsspec.filesystem("memory")
    memory.put(str(photographs), "/labelled", recursive=True)
    memory.pipe("/labelled/val/cat/notes.txt", b"no picture")
    memory.pipe("/labelled/train/zebra/0.png", b"of the training")
    there, classes = list_labelled("memory://labelled", None)
    here, wanted = list_labelled(str(photographs), None)
    assert classes == wanted == CLASSES and there.targets == here.targets
    assert [file.split("/val/")[1] for file in there.files] == [file.split("/val/")[1] for file in here.files]
    assert list_labelled("memory://labelled", ["emu", "dog", "cat"])[0].targets == [2] * 7 + [1] * 7 + [0] * 7
    with pytest.raises(anp.DataError, match="labelled: cat is not one of the 1 classes expected: dog"):
        list_labelled("memory://labelled", ["dog"])
    with pytest.raises(anp.DataError, match="holds no class folders"):
        list_labelled("memory://labelled/val/cat", None)
    with pytest.raises(anp.ImageError, match="no such file or folder"):
        list_labelled("memory://nothing", None)


def test_some_images_of_a_folder_are_those_that_one_machine_takes(photographs, model):
    shutil.copy(photographs / "val" / "cat" / "0.png", photographs / "val" / BAD)
    folder = ImageFolder(photographs / "val", recipe_of(model))
    some = first_images(folder, 8)
    assert of_dataset(some).files == [folder.files[i] for i in some.indices]
    assert evenly(of_dataset(folder), 8).files == of_dataset(some).files
    assert evenly(of_dataset(folder), 8).targets == some.targets.tolist()
    (photographs / "val" / BAD).write_bytes(b"no picture")


def test_similar_finds_what_one_machine_finds(network, photographs, two_workers, tmp_path):
    folder, index = photographs / "val", tmp_path / "parts"
    query = folder / "emu" / "4.png"
    given = ("similar", query, folder, "--weights", network, "--backend", "numba", "--top", 6)
    wanted = run_json(*given, "--index", tmp_path / "index.safetensors", code=1)
    there = "--engine", "dask", "--index", index, "--part-size", PART
    found = run_json(*given, *there, "--scheduler", two_workers.scheduler, code=1)
    assert found["matches"] == wanted["matches"] and str(query) not in json.dumps(found["matches"])
    assert (found["images"], found["kept"], found["computed"]) == (20, 0, 20)
    assert [failure["file"] for failure in found["failures"]] == [str(folder / BAD)]
    nobody = run_json(*given, *there, code=1)  # no cluster is started for parts that are there
    assert nobody["matches"] == wanted["matches"] and nobody["computed"] == 0
    lines = tmp_path / "list.txt"  # without a folder: the same pictures, one by one
    lines.write_text("".join(f"{file}\n" for file in sorted(folder.rglob("*.png"))))
    listed = run_json("similar", query, "--files-from", lines, *given[3:], *there, code=1)
    assert (listed["matches"], listed["computed"]) == (wanted["matches"], 0)
    made = run_json(
        "embed", folder, "--weights", network, "--backend", "numba", "--out", index, *there[:2], *there[4:], code=1
    )
    assert made["computed"] == 0  # embed's parts are similar's index


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["evaluate", "{net}", "--out", "x"], "--out is for --engine dask"),
        (["evaluate", "{net}", "--data", "{data}", "--engine", "dask"], "name it, --out parts/"),
        (["evaluate", "{net}", "--data", "nowhere", "--engine", "dask", "--out", "x"], "nowhere: no such folder"),
        (
            ["evaluate", "{net}", "--data", "memory://nothing", "--engine", "dask", "--out", "x"],
            "no such file or folder",
        ),
        (["evaluate", "FASHION_MNIST_V1", "--engine", "dask", "--out", "x"], "evaluates folders of images"),
        (
            ["evaluate", "{net}", "--workers", "2", "--scheduler", "tcp://x:1", "--engine", "dask", "--out", "x"],
            "a scheduler has its own",
        ),
        (["similar", "no.png", "{data}", "-w", "{net}", "--engine", "dask", "--index", "x"], "no.png: no such file"),
        (["similar", "no.png", "--files-from", "{data}", "-w", "{net}", "--engine", "dask"], "a place with --index"),
        (["similar", "no.png", "nowhere", "-w", "{net}", "--engine", "dask"], "nowhere: no such file or folder"),
    ],
)
def test_mistakes_are_one_line(given, said, network, photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"{net}": network, "{data}": photographs}
    assert said in fails(*(names.get(each, each) for each in given))
    assert list(tmp_path.iterdir()) == []
