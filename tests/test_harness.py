"""The roofline of a benchmark report."""

import pytest

from alexnet_np.benchmarks.harness import Report, Row, Work, roofline
from alexnet_np.errors import ArgumentError

PEAKS = {"gflops": 200.0, "gbps": 40.0}
CONV = Work("conv", flops=1e9, bytes=1e7, contenders=[])
RELU = Work("relu", flops=0.0, bytes=1e7, contenders=[])


def report(*works):
    rows = [Row(work.name, "numba", median=0.01, gflops=work.flops / 1e7) for work in works]
    return Report({"cpu": "a CPU", "cores": 2, "python": "3", "versions": {}}, PEAKS, rows)


def test_a_roofline_is_drawn_of_what_counts_flops(tmp_path):
    roofline(report(CONV, RELU), [CONV, RELU], tmp_path / "roof.png")
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")


def test_a_roofline_of_nothing_that_counts_flops_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="none of these kernels counts FLOPs; draw it with conv2d or linear"):
        roofline(report(RELU), [RELU], tmp_path / "roof.png")
    assert not (tmp_path / "roof.png").exists()
