"""`alexnet bench`: versions by their names, what is refused, what is told of a busy machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alexnet_np.cli.app import app
from alexnet_np.kernels import variants
from alexnet_np.measure import cases, harness, kernels, machine, units
from alexnet_np.measure.cases import Case

SMALL = [
    Case("conv2d", "conv1", (16, 9, 9), ((32, 16, 3, 3), (32,)), {"padding": 1}),
    Case("conv2d", "conv2", (32, 5, 5), ((16, 32, 3, 3), (16,)), {"padding": 1}),
    Case("max_pool2d", "pool1", (32, 9, 9), (), {"kernel_size": 3, "stride": 2}),
    Case("max_pool2d", "pool2", (16, 5, 5), (), {"kernel_size": 3, "stride": 2}),
    Case("avg_pool2d", "pool", (16, 9, 9), (), {"kernel_size": 3, "stride": 2}),
    Case("adaptive_avg_pool2d", "avgpool", (3, 9, 9), (), {"output_size": 6}),
    Case("relu", "relu", (70,)),
    Case("tanh", "tanh", (70,)),
    Case("sigmoid", "sigmoid", (70,)),
    Case("local_response_norm", "norm", (32, 5, 5), (), {"size": 5, "alpha": 5e-4, "k": 2.0}),
    Case("dropout", "drop", (70,), (), {"p": 0.5, "seed": 1}, {"p": 0.5}),
    Case("linear", "fc", (96,), ((48, 96), (48,))),
    Case("softmax", "softmax", (10,), (), {"dim": -1}),
    Case("log_softmax", "log_softmax", (10,), (), {"dim": -1}),
    Case("cross_entropy", "loss", (10,)),
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes that take no time, peaks that are not measured, no pauses between turns, and a machine of one's own."""
    monkeypatch.setattr(kernels, "CASES", SMALL)
    monkeypatch.setattr(units, "CASES", SMALL)
    monkeypatch.setattr(units, "STAGES", {"conv1": "pool1", "conv2": "pool2"})
    monkeypatch.setattr(units, "PARAMETERS", 1000)
    monkeypatch.setattr(harness, "SETTLE", 0.0)
    monkeypatch.setattr(machine, "measure_peaks", lambda: {"gflops": 1e5, "gbps": 1e5})
    monkeypatch.setattr(machine, "others", lambda: None)


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["bench", *arguments])


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = bench("kernels", "--batch", "6", "--rounds", "3", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["rows"]


NAMED = [(v.op, v.name) for v in variants.versions(device="cpu")]


@pytest.mark.parametrize(("op", "name"), NAMED, ids=[f"{op}-{name}" for op, name in NAMED])
def test_every_version_is_timed_by_its_name(op: str, name: str) -> None:
    found = rows("--op", op, "--version", name)
    label = variants.find(op, name, "cpu").label
    timed = {row["work"].rpartition(", ")[2] for row in found if row["contender"] == label and not row["missing"]}
    told = [row["missing"] for row in found if row["contender"] == label and row["missing"]]
    if op == "sgd":
        assert timed == {"step"}
    elif name in ("direct", "winograd-3"):  # no gradients; no kernel of 5 among these shapes
        assert timed == ({"forward"} if name == "direct" else set())
        assert any("does not compute this conv2d's" in reason for reason in told)
    else:
        assert timed == {"forward", "backward"}
        assert not told
    assert {row["contender"] for row in found} >= {"torch fused" if op == "sgd" else "torch"}


def test_without_a_name_the_usual_ones_take_part() -> None:
    found = {row["contender"] for row in rows("--op", "conv2d")}
    assert found == {
        *("numpy", "numba", "numba im2col", "numba direct", "numba winograd-4", "numba winograd-5", "numba winograd-6"),
        *("torch", "torch channels_last"),
    }


def test_a_name_alone_runs_every_op_that_has_it() -> None:
    found = rows("--version", "naive")
    assert {row["work"].split()[0] for row in found} == {"avg_pool2d", "conv2d", "local_response_norm", "max_pool2d"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "foo"], "unknown op 'foo': choose one of conv2d, "),
        (
            ["--op", "conv2d", "--version", "foo"],
            "conv2d has no version 'foo' on the cpu: choose one of numpy, naive, ",
        ),
        (["--version", "foo"], "no op has a version 'foo' on the cpu: choose one of numpy, naive, "),
        (["--op", "relu", "--roofline", "a.gif"], "a.gif: a picture is written as .png, "),
        (["--op", "relu", "--out", "nowhere/a.json"], "nowhere/a.json: there is no folder nowhere; create it first"),
        (["--op", "relu", "--out", "nowhere/a.svg"], "nowhere/a.svg: there is no folder nowhere; create it first"),
        (["--op", "relu", "--out", "a.txt"], "a.txt: a report is saved as .json, .md, .png, "),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: list[str], message: str) -> None:
    result = bench("kernels", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"alexnet: {message}")
    assert result.stderr.count("\n") == 1


def test_a_busy_machine_is_told_of_before_and_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "others", lambda: machine.Others(1.5, ["python 1.0"]))
    result = bench("kernels", "--op", "relu", "--batch", "2", "--rounds", "3", "--out", str(tmp_path / "r.json"))
    assert result.exit_code == 0
    assert result.stderr.startswith("alexnet: other programs keep 1.5 of the ")
    assert "Busy: other programs keep 1.5 of the " in result.stdout
    assert json.loads((tmp_path / "r.json").read_text())["machine"]["busy"].endswith("(python 1.0)")


def test_one_run_is_saved_in_every_way_and_drawn_again(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("r.json", "r.md", "r.svg", "roof.svg")]
    saved = [part for file in files[:3] for part in ("--out", str(file))]
    rows("--op", "linear", *saved, "--roofline", str(files[3]))
    assert files[1].read_text().count("| linear fc, batch 6, ") == 2
    for picture, file in (("kernels", files[2]), ("roofline", files[3])):
        result = bench("draw", str(files[0]), "--picture", picture, "--out", str(tmp_path / "again.svg"))
        assert (result.exit_code, result.output) == (0, "")
        assert (tmp_path / "again.svg").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["r.json", "--out", "a.gif"], "a.gif: a picture is written as .png, "),
        (["r.json", "--out", "a.json"], "a.json: a picture is written as .png, "),
        (["r.json", "r.json", "r.json", "--out", "a.svg"], "kernels: 3 reports are too many; draw them one by one"),
        (["r.json", "--picture", "accuracy", "--out", "a.svg"], "nothing to draw: no row has an error; `alexnet bench"),
        (["r.json", "--picture", "roofline", "--out", "a.svg"], "roofline: none of these kernels counts FLOPs; draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows("--op", "relu", "--out", "r.json")
    result = bench("draw", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"alexnet: {message}")
    assert result.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_versions_are_listed() -> None:
    listed = json.loads(bench("versions", "--json").stdout)
    assert [(each["op"], each["name"]) for each in listed] == [(v.op, v.name) for v in variants.VARIANTS]
    shown = bench("versions", "--op", "max_pool2d").stdout
    assert "naive" in shown and "every window, pixel by pixel" in shown and "conv2d" not in shown
    assert bench("versions", "--op", "foo").stderr.startswith("alexnet: unknown op 'foo': choose one of ")


def test_every_op_has_a_case_or_a_work_of_its_own() -> None:
    ops = {case.op for case in cases.CASES}
    assert ops == {case.op for case in SMALL}
    assert {v.op for v in variants.VARIANTS} - ops == {"sgd", units.FUSED}
