"""Saved reports as Markdown, and that the table in RESULTS.md is what the saved reports say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alexnet_np.measure import markdown
from alexnet_np.measure.report import Report, Row

ROOT = Path(__file__).parents[1]
VERSIONS = {"cpu": "A CPU", "cores": 2, "python": "3.11", "versions": {"numpy": "2.0"}}


def row(work: str, contender: str, median: float, **more: float) -> Row:
    return Row(work, contender, "", median, median / 2, 0.25, gflops=10.0, gbps=5.0, peak_share=0.5, **more)


@pytest.fixture
def cpu() -> Report:
    rows = [row("conv, forward", "numpy", 4e-3), row("conv, forward", "numba", 1.2345e-3, ratio=1.5)]
    rows += [Row("conv, forward", "torch", missing="torch is not installed"), row("each algorithm", "direct", 1e-3)]
    return Report(VERSIONS, {"gflops": 20.0, "gbps": 10.0}, rows)


@pytest.fixture
def gpu() -> Report:
    rows = [row("conv, forward, strict float32", "cuda", 20e-6), row("conv, forward, TF32", "cuda", 10e-6)]
    rows += [row("conv, forward, strict float32", "torch", 25e-6)]
    return Report(VERSIONS | {"gpu": "A GPU"}, {"gflops": 60e3, "gflops TF32": 300e3, "gbps": 3e3}, rows)


def cells(text: str, work: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {work} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_without_a_gpus_report_its_cells_say_so(cpu: Report) -> None:
    text = markdown.against(cpu, None)
    heads = "| kernel | MFLOP | MB | CPU floor | CPU numpy | CPU numba | CPU torch |"
    assert text.splitlines()[0] == f"{heads} GPU floor | GPU cupy | GPU cuda | GPU torch |"
    assert len(text.splitlines()) == 3  # an algorithm alone is no kernel of both
    assert cells(text, "conv, forward") == ["40", "20", "2", "2", "0.617", *["not measured"] * 5]


def test_a_gpus_strict_times_stand_beside_the_cpus(cpu: Report, gpu: Report) -> None:
    found = cells(markdown.against(cpu, gpu), "conv, forward")
    assert found[5:] == ["not measured", "0.01", "not measured", "0.01", "0.0125"]


def test_a_page_has_every_row(cpu: Report) -> None:
    text = markdown.page(cpu)
    assert text.startswith("A CPU, 2 cores; measured peaks 20 GFLOP/s, 10 GB/s")
    assert cells(text, "conv, forward") == ["numpy", "4", "2", "25%", "10", "5", "2", ""]
    assert "| | torch | missing: torch is not installed |" in text.replace("|  |", "| |")
    assert "1.50" in text


def test_a_section_goes_between_its_marks(cpu: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.save(tmp_path / "cpu.json")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{markdown.BEGIN}\nold\n{markdown.END}\nafter\n")
    monkeypatch.setattr(sys, "argv", ["markdown", "--against", str(tmp_path / "cpu.json"), "--into", str(page)])
    markdown.main()
    assert page.read_text() == f"before\n{markdown.BEGIN}\n{markdown.section(cpu, None)}{markdown.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="nowhere to write"):
        markdown.main()
    assert page.read_text() == "no marks"


def test_the_table_in_the_results_is_what_was_measured() -> None:
    reports = [ROOT / "benchmarks" / "reports" / name for name in ("kernels_cpu.json", "kernels_gpu.json")]
    cpu, *gpu = [Report.load(path) for path in reports if path.exists()]
    assert markdown.section(cpu, gpu[0] if gpu else None) in (ROOT / "benchmarks" / "RESULTS.md").read_text(
        encoding="utf-8"
    )
