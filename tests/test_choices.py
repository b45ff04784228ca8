"""The table of choices: the first row that fits and can; overrides; measured rows; every way that is named exists."""

import json

import numpy as np
import pytest
from oracles import refused

from alexnet_np.errors import ArgumentError, BackendError
from alexnet_np.kernels import choices, conv2d_numba
from alexnet_np.kernels.choices import Row, choose
from alexnet_np.kernels.conv2d_winograd_transforms import FAMILIES
from alexnet_np.kernels.cpu import caches
from alexnet_np.kernels.cpu.simd import MACHINE, MACHINES
from alexnet_np.kernels.problems import AS_IT_IS, DENSE, FILLED, LIMITS, Problem, formed, of_convolution
from alexnet_np.ops import conv2d

AVX512 = MACHINES["avx512"]  # 16 lanes, tiles of 12 rows


def convolution(C=64, F=192, kernel=3, stride=1, groups=1, padding=1, dilation=1, batch=32, size=13, **facts):
    x = np.broadcast_to(np.float32(0), (batch, C, size, size))
    weight = np.broadcast_to(np.float32(0), (F, C // groups, kernel, kernel))
    geometry = conv2d.find_geometry(x, weight, None, stride, padding, dilation, groups)
    return of_convolution(x, weight, geometry, **({"machine": AVX512} | facts))


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (convolution(), "winograd F(5,3)"),  # 13 = 3 tiles of 5, and of 6, which multiply more
        (convolution(size=12), "winograd F(6,3)"),
        (convolution(size=8), "winograd F(4,3)"),
        (convolution(kernel=5, padding=2, size=27), "winograd F(4,5)"),
        (convolution(kernel=5, padding=2, size=9), "winograd F(3,5)"),
        (convolution(C=3, kernel=11, stride=4, size=224, padding=2), "winograd F(5,3)"),
        (convolution(C=3, kernel=11, stride=4, size=224, folds=False), "direct"),
        (convolution(exact=True), "direct"),
        (convolution(dilation=2), "direct"),
        (convolution(kernel=1), "direct"),
        (convolution(direction="backward"), "winograd F(5,3)"),
        (convolution(direction="backward", kernel=1), "im2col"),
        (convolution(dtype="float64"), "im2col"),
        (convolution(batch=0), "im2col"),
        (convolution(C=64, groups=64), "direct"),
        (convolution(C=64, groups=64, direction="backward"), "im2col"),
        (convolution(groups=2), "winograd F(5,3)"),
        (convolution(device="gpu"), "im2col"),
        (convolution(device="gpu", F=64), "im2col"),
        (convolution(device="gpu", F=64, precision="tf32"), "im2col"),
        (convolution(device="gpu", F=64, direction="backward"), "im2col"),
        (Problem("linear", batch=1, C=4096, F=1000, machine=AVX512), "arrays"),
        (Problem("linear", batch=2, C=4096, F=1000, machine=AVX512), "panels"),
        (Problem("linear", batch=2, C=4096, F=1000, layout="strided", machine=AVX512), "arrays"),
        (Problem("linear", batch=2, C=4100, F=1000, direction="backward", machine=AVX512), "arrays"),
        (Problem("linear", batch=1, C=4096, F=1000, planned=True, machine=AVX512), "packed"),
        (Problem("linear", "gpu", batch=4), "cublas"),
        (Problem("linear", "gpu", batch=4, planned=True), "rows"),
        (Problem("linear", "gpu", batch=5, planned=True), "cublas"),
        (Problem("local_response_norm", "gpu", window=5), "registers"),
        (Problem("local_response_norm", "gpu", window=17), "naive"),
        (Problem("gemm", "gpu"), "strict"),
    ],
)
def test_shipped_choices(problem, expected):
    assert str(choose(problem)) == expected


@pytest.mark.parametrize(
    ("problem", "form", "channels_filters_groups"),
    [
        (convolution(C=16, F=16), AS_IT_IS, (16, 16, 1)),
        (convolution(C=9, F=12), FILLED, (16, 16, 1)),
        (convolution(C=8, F=12), AS_IT_IS, (8, 12, 1)),  # half a vector
        (convolution(C=1, F=12, kernel=11, stride=4, size=64), FILLED, (1, 16, 1)),  # folded 16 channels
        (convolution(C=24, F=24, groups=2), AS_IT_IS, (12, 12, 2)),
        (convolution(C=24, F=20, groups=2, planned=True), DENSE, (24, 20, 1)),
        (convolution(C=4, F=6, groups=2, planned=True), DENSE, (16, 16, 1)),
        (convolution(C=4, F=6, planned=True), FILLED, (16, 16, 1)),
        (convolution(C=9, F=12, direction="backward", kernel=1), AS_IT_IS, (9, 12, 1)),  # im2col wastes no lanes
    ],
)
def test_narrow_and_grouped_convolutions(problem, form, channels_filters_groups):
    choice = choose(problem)
    computed = formed(problem, choice.form)
    assert choice.form == form
    assert (computed.C, computed.F, computed.groups) == channels_filters_groups


def test_sizes_come_from_the_first_row_that_says_them():
    sizes = choose(convolution()).sizes
    assert sizes == {"block_tiles": caches.scaled(32, caches.find().core, 1 << 20, 24, 96), "column_bytes": 2 << 20}
    with choices.overriding(Row(block_tiles=7), Row("direct", kernel=3)):
        choice = choose(convolution())
        assert (choice.algorithm, choice.sizes["block_tiles"]) == ("direct", 7)
        with choices.overriding(Row(block_tiles=9, batch=(1, 31))):
            assert choose(convolution()).sizes["block_tiles"] == 7
            assert choose(convolution(batch=31)).sizes["block_tiles"] == 9
    assert choose(convolution()).algorithm == "winograd"


def test_block_of_a_sum_depends_on_how_many_tiles_the_rows_fill():
    def block(batch, **facts):
        return choose(Problem("linear", batch=batch, C=4096, F=1000, machine=AVX512, **facts)).sizes["block_k"]

    assert block(24, planned=True) > 4096 and block(25, planned=True) == 1024 and block(24) == 256


def test_a_row_that_cannot_compute_the_problem_is_passed_over():
    with choices.overriding(Row("winograd", tiles=(2, 9))):  # there is no code for F(2,3)
        assert str(choose(convolution())) == "winograd F(5,3)"
    with choices.overriding(Row("winograd", tiles=(4,))):
        assert str(choose(convolution())) == "winograd F(4,3)"
        assert str(choose(convolution(dilation=2))) == "direct"
        assert str(choose(convolution(exact=True))) == "direct"
    with choices.overriding(Row("winograd", device="gpu", tiles=(4,))):
        assert str(choose(convolution(device="gpu"))) == "winograd F(4,3)"
        for facts in ({"exact": True}, {"precision": "tf32"}, {"stride": 2}, {"direction": "backward"}, {"kernel": 1}):
            assert str(choose(convolution(device="gpu", **facts))) == "im2col"
    with choices.overriding(Row("implicit", device="gpu")):
        assert str(choose(convolution(device="gpu"))) == "implicit"
        assert str(choose(convolution(device="gpu", precision="tf32"))) == "im2col"


def test_measured_rows_come_between_overrides_and_the_table_and_survive_json():
    problem = convolution(batch=8)
    rows = [Row("direct", **problem.conditions()), Row("winograd", tiles=(4,), kernel=3)]
    rows = [Row(**row) for row in json.loads(json.dumps([row.as_dict() for row in rows]))]
    choices.use_measured(rows)
    try:
        assert str(choose(problem)) == "direct" and str(choose(convolution(batch=9))) == "winograd F(4,3)"
        assert "measured" in choices.show()
        with choices.overriding(Row("im2col")):
            assert str(choose(problem)) == "im2col"
    finally:
        choices.use_measured([])
    assert str(choose(problem)) == "winograd F(5,3)"


def test_every_way_that_can_compute_a_problem():
    assert [str(way) for way in choices.ways(convolution())] == [
        "direct",
        "im2col",
        "winograd F(4,3)",
        "winograd F(5,3)",
        "winograd F(6,3)",
    ]
    assert [str(way) for way in choices.ways(convolution(direction="backward", kernel=1))] == ["im2col"]
    assert [str(way) for way in choices.ways(convolution(device="gpu"))] == [
        "im2col",
        "implicit",
        "direct",
        "winograd F(4,3)",
        "winograd F(5,3)",
        "winograd F(6,3)",
    ]
    assert choices.ways(Problem("stages")) == []


def test_the_table_names_a_reason_for_every_row_and_a_way_for_every_problem():
    assert all(row.why for row in choices.TABLE)
    for op, device in LIMITS:
        assert any(row.algorithm and not row.where for row in choices.TABLE if (row.op, row.device) == (op, device))
    named = {(row.says["tiles"], row.where["kernel"]) for row in choices.TABLE if row.algorithm == "winograd"}
    for tiles, kernel in named:
        assert {(m, {3: 3, 5: 5, 11: 3}[kernel]) for m in tiles} <= set(FAMILIES)


def test_every_way_of_the_numba_convolution_can_be_forced(rng):
    """Each is computed, and all agree: a name in the table that led nowhere would show here."""
    x = rng.standard_normal((2, 16, 13, 13), dtype=np.float32)
    weight = rng.standard_normal((32, 16, 3, 3), dtype=np.float32)
    geometry = conv2d.find_geometry(x, weight, None, 1, 1, 1, 1)
    expected = conv2d.compute(x, weight, None, geometry)
    problem = of_convolution(x, weight, geometry, machine=MACHINE)
    found = choices.ways(problem)
    assert {way.algorithm for way in found} == set(LIMITS["conv2d", "cpu"])
    for way in found:
        with choices.overriding(choices.row_of(way, problem)):
            assert conv2d_numba.choose(x, weight, geometry, "forward") == way
            y = conv2d_numba.compute(x, weight, None, geometry)
        assert np.linalg.norm(y - expected) < 1e-5 * np.linalg.norm(expected), way


def test_show_prints_every_row_under_its_head():
    head, *lines = choices.show().splitlines()
    assert head.split() == ["op", "device", "where", "choice", "from", "why"]
    assert len(lines) == len(choices.TABLE) and all("shipped" in line for line in lines)
    with choices.overriding(Row("direct", kernel=5, why="a test")):
        line = choices.show().splitlines()[1]
    assert line.split() == ["conv2d", "cpu", "kernel", "5", "direct", "override", "a", "test"]


def test_rows_that_mean_nothing_are_refused():
    with refused(ArgumentError, "a row knows no kernal; it knows C, F"):
        Row("direct", kernal=5)
    with refused(ArgumentError, "conv2d on the cpu has no way 'fft', only winograd, direct, im2col"):
        Row("fft")
    with refused(ArgumentError, "relu on the cpu has no way 'fast', only one"):
        Row("fast", op="relu")


def test_a_problem_that_nobody_can_compute_is_named():
    with refused(BackendError, "no row of the table can compute Problem.*float64"):
        choose(convolution(dtype="float64", planned=True))
