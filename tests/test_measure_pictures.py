"""Pictures of reports: what each kind shows, in every format; no name on another; the README's as measured."""

from __future__ import annotations

import html
import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles import refused
from PIL import Image

from alexnet_np.errors import ArgumentError
from alexnet_np.figures import new_figure
from alexnet_np.measure import pictures
from alexnet_np.measure.pictures import accuracy, fitting, kernels, labels, peers, roofline
from alexnet_np.measure.report import Report, Row

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "benchmarks" / "reports"
HOST = {"cpu": "A CPU", "cores": 2, "python": "3.11", "versions": {"numpy": "2.0"}}
PEAKS = {"gflops": 200.0, "gbps": 40.0}


def network(contender: str, batch: int, ms: float, error: float = 1e-6, **more: bool) -> Row:
    work = f"inference, torchvision, batch {batch}"
    row = Row(work, contender, "", 1e-3 * ms, 1e-3 * ms, 0.1, 100.0, 2.0, 0.5, 8 / ms, error=error, images=batch)
    return replace(row, **more)


MODEL = Report(
    HOST,
    PEAKS,
    [
        network("plan", 1, 4.0),
        network("plan, int16 dense weights", 1, 2.0, 2e-5, reduced=True),
        network("openvino", 1, 8.0, 7e-7),
        network("openvino bf16", 1, 6.0, 3e-3, reduced=True),
        network("plan", 32, 64.0),
        network("torch compiled", 32, 320.0, 3e-7),
        Row("inference, torchvision, batch 32", "onnxruntime", missing="not installed"),
    ],
)


def kernel(work: str, contender: str, ms: float, **more: float) -> Row:
    return Row(work, contender, "", 1e-3 * ms, 1e-3 * ms, 0.1, peak_share=0.5, **more)


CONV, RELU = "conv2d conv2, batch 8, forward", "relu relu1, batch 8, backward"
CPU = Report(
    HOST,
    PEAKS,
    [
        kernel(CONV, "numpy", 30.0, gflops=90.0, gbps=0.9),
        kernel(CONV, "numba", 8.0, gflops=400.0, gbps=4.0),
        kernel(CONV, "torch", 20.0, gflops=180.0, gbps=1.8),
        kernel(CONV, "torch channels_last", 16.0, gflops=210.0, gbps=2.1),
        kernel(RELU, "numba", 0.8, gbps=20.0),
    ],
)
GPU = Report(HOST | {"gpu": "A GPU"}, PEAKS, [kernel(f"{CONV}, strict float32", "cuda", 0.02)])


def test_a_bar_is_an_images_milliseconds_and_the_fastest_is_above() -> None:
    figure, title, words = peers.picture([MODEL])
    assert title == "Inference, torchvision"
    first, second = figure.axes
    assert [tick.get_text() for tick in first.get_yticklabels()] == [
        *("plan, int16 dense weights", "plan", "openvino bf16", "openvino")
    ]
    assert [bar.get_width() for bar in first.patches] == [2.0, 4.0, 6.0, 8.0]
    assert [bar.get_width() for bar in second.patches] == [2.0, 10.0]
    assert [bool(bar.get_hatch()) for bar in first.patches] == [True, False, True, False]
    assert words.splitlines() == [
        "inference, torchvision, batch 1, ms an image: plan, int16 dense weights 2, 4.00×, plan 4, 2.00×, "
        "openvino bf16 6, openvino 8",
        "inference, torchvision, batch 32, ms an image: plan 2, 0.12×, torch compiled 10",
    ]


def test_a_job_has_the_bound_of_its_parts() -> None:
    work, parts = "100 JPEGs of 500x375 as vectors", {"alexnet_np": 400.0, "decoding alone": 100.0}
    rows = [Row(work, name, "", 1e-3 * ms, 0, 0, images=100) for name, ms in parts.items()]
    (axes,) = peers.picture([Report(HOST, PEAKS, rows)]).figure.axes
    assert not [line for line in axes.lines if line.get_linestyle() == "--"]
    rows.append(Row(work, "network alone", "", 0.25, 0, 0, images=100))
    (axes,) = peers.picture([Report(HOST, PEAKS, rows)]).figure.axes
    (bound,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert list(bound.get_xdata()) == pytest.approx([3.5, 3.5])


def test_a_point_is_a_contenders_time_and_error_hollow_where_bits_are_fewer() -> None:
    figure, _, words = accuracy.picture([MODEL])
    first, second = figure.axes
    found = [(*line.get_xdata(), *line.get_ydata(), line.get_markerfacecolor()) for line in first.lines]
    assert found == [
        (4.0, 1e-6, "#0072B2"),
        (2.0, 2e-5, "white"),
        (8.0, 7e-7, "#AA4499"),
        (6.0, 3e-3, "white"),
    ]
    assert first.get_xscale() == first.get_yscale() == "log"
    assert [list(line.get_xdata()) for line in second.lines] == [[2.0], [10.0]]
    assert "batch 32, ms an image and relative error: plan 2 ms 1.0e-06, torch compiled 10 ms 3.0e-07" in words


def test_a_roofline_names_the_fastest_of_ours_by_layer_under_its_pass() -> None:
    figure, _, words = roofline.picture([CPU])
    (axes,) = figure.axes  # relu counts no FLOPs
    assert axes.get_title(loc="left") == "forward"
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["conv2"]
    points = {line.get_label(): (*line.get_xdata(), *line.get_ydata()) for line in axes.lines}
    assert points["fastest of alexnet-np"] == pytest.approx((100.0, 400.0))
    assert points["fastest peer"] == pytest.approx((100.0, 210.0))
    assert words == f"{CONV}: numba 400 GFLOP/s at 100 FLOP/byte; torch channels_last 210"
    with refused(ArgumentError, "none of these kernels counts FLOPs"):
        roofline.picture([Report(HOST, PEAKS, CPU.rows[-1:])])


def test_kernels_of_both_machines_are_in_one_line_and_what_is_missing_is_said() -> None:
    alone, both = kernels.picture([CPU]), kernels.picture([CPU, GPU])
    assert alone.words.splitlines() == [
        f"{CONV}, ms: CPU numpy 30, CPU torch channels_last 16, CPU numba 8",
        f"{RELU}, ms: CPU numba 0.8",
        "GPU: not measured.",
    ]
    assert both.words.splitlines()[0].endswith("CPU numba 8, GPU cuda 0.02")
    assert "not measured" not in both.words
    (axes,) = both.figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["conv2 forward", "relu1 backward"]
    shown = sorted(float(x) for line in axes.lines for x in line.get_xdata())
    assert shown == pytest.approx([0.02, 0.8, 8.0, 16.0, 30.0])
    (only,) = kernels.picture([GPU]).words.splitlines()[1:]
    assert only == "CPU: not measured."


def test_the_kind_that_fits() -> None:
    assert (fitting(MODEL), fitting(CPU), fitting(GPU)) == ("peers", "kernels", "kernels")


@pytest.mark.parametrize("kind", pictures.KINDS)
@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.JPG", b"\xff\xd8")]
)
def test_every_picture_in_every_format(tmp_path: Path, kind: str, name: str, start: bytes) -> None:
    report = CPU if kind in ("roofline", "kernels") else MODEL
    pictures.draw([report], kind, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 1
    if name == "a.png":
        with Image.open(tmp_path / name) as image:
            assert image.width <= 600 and image.text["Description"] == pictures.KINDS[kind]([report]).words
            assert np.asarray(image.convert("L"))[0].min() == 255  # on white


def test_names_lie_on_no_other_and_on_no_point() -> None:
    """Forty points, many of them together."""
    rng = np.random.default_rng(0)
    at = [(float(x), float(y)) for x, y in np.concatenate([rng.random((30, 2)), 0.4 + 0.02 * rng.random((10, 2))])]
    names = [f"contender {i}" for i in range(len(at))]
    figure = new_figure(8, 8)
    axes = figure.subplots()
    axes.plot(*zip(*at, strict=True), "o", markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels.name_points(axes, at, names, ["black"] * len(at))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == len(at)
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    for x, y in axes.transData.transform(at):
        assert not [box for box in boxes if box.contains(x, y)]
    inside = axes.get_window_extent()
    assert all(inside.contains(*corner) for box in boxes for corner in (box.min, box.max))


README = {  # as `make pictures` draws them
    "peers.svg": ("peers", ["model.json"]),
    "accuracy.svg": ("accuracy", ["model.json"]),
    "roofline.svg": ("roofline", ["kernels_cpu.json"]),
    "kernels.svg": ("kernels", ["kernels_cpu.json", "kernels_gpu.json"]),
}


@pytest.mark.parametrize("name", README)
def test_the_readmes_pictures_are_what_was_measured(name: str) -> None:
    kind, files = README[name]
    reports = [Report.load(REPORTS / file) for file in files if (REPORTS / file).exists()]
    drawn = (ROOT / "docs" / name).read_text(encoding="utf-8")
    (words,) = re.findall(r"<dc:description>(.*?)</dc:description>", drawn, re.DOTALL)
    assert html.unescape(words) == pictures.KINDS[kind](reports).words
    assert f"](docs/{name})" in (ROOT / "README.md").read_text(encoding="utf-8")
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"--picture {kind} --out docs/{name}\n" in make
