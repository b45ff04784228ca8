"""The roofline of a benchmark report."""

import pytest

from alexnet_np.errors import ArgumentError
from alexnet_np.measure.report import Report, Row, roofline

PEAKS = {"gflops": 200.0, "gbps": 40.0}
CONV = Row("conv", "numba", median=0.01, gflops=100.0, gbps=1.0)
RELU = Row("relu", "numba", median=0.01, gbps=1.0)


def report(*rows):
    return Report({"cpu": "a CPU", "cores": 2, "python": "3", "versions": {}}, PEAKS, list(rows))


def test_a_roofline_is_drawn_of_what_counts_flops(tmp_path):
    roofline(report(CONV, RELU), tmp_path / "roof.png")
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")


def test_a_roofline_of_nothing_that_counts_flops_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="none of these kernels counts FLOPs; draw it with conv2d or linear"):
        roofline(report(RELU), tmp_path / "roof.png")
    assert not (tmp_path / "roof.png").exists()
