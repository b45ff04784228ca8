"""The one list of versions: complete, its names the backends', and nothing in it that no test runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from oracles import refused

from alexnet_np import kernels, ops
from alexnet_np.backend import BACKENDS, FUSED, IMPLEMENTATIONS, OPS, implementation
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels import choices, variants
from alexnet_np.kernels.problems import LIMITS

TESTS = Path(__file__).parent
TABLE = IMPLEMENTATIONS | FUSED


def test_what_the_backends_name_is_in_the_list() -> None:
    listed = {(v.op, v.name, v.module) for v in variants.VARIANTS}
    for op, modules in TABLE.items():
        for backend, module in modules.items():
            if module != OPS + op or backend in ("numpy", "cupy"):
                assert (op, backend, module) in listed


def test_a_name_that_is_a_backends_is_what_the_backend_runs() -> None:
    for variant in variants.VARIANTS:
        assert variant.backend in BACKENDS
        if variant.name in BACKENDS:
            assert TABLE[variant.op][variant.name] == variant.module
            assert variant.name == variant.backend and not variant.rows


def test_every_module_with_an_ops_functions_is_in_the_list() -> None:
    """A file of an op that has its `compute` and `gradients`, or another pair of them, cannot be left out."""
    listed = {(v.module, function) for v in variants.VARIANTS for function in v.functions}
    reached = {v.module.rpartition(".")[2] for v in variants.VARIANTS}
    names = sorted({v.op for v in variants.VARIANTS}, key=len, reverse=True)
    folder = Path(kernels.__path__[0])
    called = "".join((folder / f"{name}.py").read_text() for name in reached if (folder / f"{name}.py").is_file())
    for path in sorted(folder.glob("*.py")):
        op = next((op for op in names if path.stem.startswith(op + "_")), None)
        defined = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        if op is None or not {"compute", "gradients"} <= defined:
            continue
        for name in {"naive_compute", "naive_gradients"} & defined:
            assert (f"alexnet_np.kernels.{path.stem}", name) in listed
        way = path.stem.removeprefix(op + "_").removesuffix("_numba")
        named = {v.rows[0].algorithm for v in variants.versions(op) if v.rows}
        assert path.stem in reached or way.partition("_")[0] in named or f"import {path.stem} " in called, path.name


def test_every_way_of_choices_is_in_the_list_or_is_a_backends() -> None:
    """A plan's own way (`packed`) and the one that hands on to the array version apart."""
    for (op, device), ways in LIMITS.items():
        if op in IMPLEMENTATIONS:  # the arithmetic of a product is an argument of a whole plan
            listed = variants.versions(op, device)
            known = {v.rows[0].algorithm if v.rows else v.name for v in listed} | {
                v.module.split("_")[-2] for v in listed
            }
            assert set(ways) - known <= {"packed", "arrays"}


def test_every_op_of_the_list_is_tested_in_all_its_versions() -> None:
    """Each op's file makes its fixture of the list; softmax and tanh share theirs with their twins."""
    made = {
        op for path in TESTS.glob("test_*.py") for op in re.findall(r'= implementations\("(\w+)"\)', path.read_text())
    }
    assert made >= {v.op for v in variants.VARIANTS} - {"log_softmax", "sigmoid", *FUSED}  # tests/test_fusion.py


def test_names_are_one_a_device() -> None:
    for op in IMPLEMENTATIONS:
        for device in ("cpu", "gpu"):
            names = [v.name for v in variants.versions(op, device)]
            assert len(set(names)) == len(names)


def test_a_version_is_found_by_its_name_and_its_label() -> None:
    naive = variants.find("conv2d", "naive")
    assert naive.device == "cpu" and naive is variants.find("conv2d", "numba naive", "cpu")
    assert variants.find("conv2d", "naive", "gpu") is variants.find("conv2d", "cuda naive")


def test_what_there_is_not_is_refused_with_the_choices() -> None:
    with refused(ArgumentError, r"unknown op 'foo': choose one of conv2d, conv2d_relu_max_pool2d, max_pool2d, "):
        variants.versions("foo")
    with refused(ArgumentError, r"relu has no version 'naive' on the cpu: choose one of numpy, numba"):
        variants.find("relu", "naive", "cpu")


def test_inside_the_with_the_op_is_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((1, 2, 3), np.float32)
    before = implementation("relu", x)
    with variants.using(variants.find("relu", "numba")):
        assert implementation("relu", x).__name__ == "alexnet_np.kernels.relu_numba"
        with variants.using(variants.find("relu", "numpy")):
            assert implementation("relu", x) is ops.relu
        assert implementation("relu", x).__name__ == "alexnet_np.kernels.relu_numba"
        assert implementation("tanh", x) is ops.tanh
    assert implementation("relu", x) is before


@pytest.mark.parametrize(
    "variant",
    [v for v in variants.versions(device="cpu") if v.rows],
    ids=lambda v: f"{v.op}-{v.name}".replace(" ", "-"),
)
def test_a_way_that_is_insisted_on_is_taken_or_refused(variant: variants.Variant) -> None:
    rng = np.random.default_rng(0)
    taken = []
    for kernel, padding in ((3, 1), (5, 2)):
        x = np.ascontiguousarray(rng.random((2, 9, 9, 32), np.float32)).transpose(0, 3, 1, 2)
        arguments = {
            "conv2d": ((x, rng.random((32, 32, kernel, kernel), np.float32)), {"padding": padding}),
            "max_pool2d": ((x,), {"kernel_size": kernel}),
            "avg_pool2d": ((x,), {"kernel_size": kernel}),
            "local_response_norm": ((x,), {"size": kernel}),
            "linear": ((rng.random((6, 96), np.float32), rng.random((48, 96), np.float32)), {}),
        }[variant.op]
        with variants.using(variant, insisting=True):
            try:
                getattr(ops, variant.op).forward(*arguments[0], **arguments[1])
                taken.append(kernel)
            except choices.NoWay as error:
                assert variant.rows[0].algorithm in str(error)
    assert taken == {"winograd-3": [5], "winograd-5": [3], "winograd-6": [3]}.get(variant.name, [3, 5])
