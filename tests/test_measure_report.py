"""A report: peaks measured twice, its table at every width."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from alexnet_np.measure.report import Report, Row
from alexnet_np.measure.table import ReportTable

PEAKS = {"gflops": 200.0, "gbps": 40.0}
CONV = Row("conv2d conv1, batch 8, forward", "numba", "", 0.01234, 0.01, 0.25, 150.0, 1.0, 0.75, 1.25)
BACK = Row("conv2d conv1, batch 8, backward", "numba winograd-5", "", 12.34567, 12.0, 0.01, 450.0, 3.0, 2.25, 0.9)
RELU = Row("relu relu1, batch 8, forward", "torch channels_last", "", 0.00001, 0.000009, 0.5, 0.0, 25.0, 0.625)
GONE = Row("relu relu1, batch 8, forward", "torch", missing="torch is not installed")


def report(*rows: Row, gpu: bool = False) -> Report:
    machine = {"cpu": "a CPU", "cores": 2, "python": "3", "versions": {}} | ({"gpu": "a GPU"} if gpu else {})
    return Report(machine, dict(PEAKS), list(rows))


def shown(found: Report, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(ReportTable(found))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("width", [50, 60, 80, 120, 150])
def test_no_number_is_cut_and_no_line_is_too_long(width: int, gpu: bool) -> None:
    text = shown(report(CONV, BACK, RELU, GONE, gpu=gpu), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for row in (CONV, BACK, RELU):
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {row.contender:19}")]
        assert f" {1e3 * row.median:.3f}" in line
    assert "missing: torch is not installed" in " ".join(text.split())
    for row in (CONV, BACK):
        assert row.work in text


def test_columns_go_in_the_order_of_their_importance() -> None:
    heads = [shown(report(CONV, BACK, RELU), width) for width in (50, 80, 150)]
    assert "× fastest peer" in heads[0] and "best ms" not in heads[0]
    assert "of peak" in heads[1] and "GB/s  " not in heads[1]
    assert all(word in heads[2] for word in ("best ms", "spread", "GFLOP/s", "GB/s", "of peak"))


def test_ratios_and_shares_are_explained_and_none_is_above_all() -> None:
    text = shown(report(CONV, BACK), 120)
    assert "above 1 is faster than every peer" in text
    assert ">100%" in text and "225%" not in text and "Over 100%" in text
    assert "Over 100%" not in shown(report(CONV), 120)


def test_a_better_peak_takes_the_place_of_the_first() -> None:
    found = report(CONV, BACK)
    found.raise_peaks({"gflops": 600.0, "gbps": 30.0})
    assert found.peaks == {"gflops": 600.0, "gbps": 40.0}
    assert [row.peak_share for row in found.rows] == [pytest.approx(0.25), pytest.approx(0.75)]


def test_a_busy_machine_stands_in_the_title() -> None:
    found = report(CONV)
    found.machine["busy"] = "other programs keep 1.5 of the 2 cores busy (python 1.0)"
    assert "Busy: other programs keep 1.5" in shown(found, 120)


def test_errors_stand_beside_times_where_somebody_looked() -> None:
    assert "error" not in shown(report(CONV), 150)
    text = " ".join(shown(report(replace(CONV, error=1.26e-6), BACK), 150).split())
    assert "1.3e-06" in text and "error: of the result to float64" in text


def test_a_notebook_shows_the_times_and_what_is_missing():
    missing = Row("conv", "torch", missing="torch is not installed")
    shown = report(Row("conv", "numba", median=0.0125, best=0.01, spread=0.1, ratio=2.0), missing)._repr_html_()
    assert all(cell in shown for cell in ("12.500", "10.000", "10%", "2.00", "missing: torch is not installed"))
