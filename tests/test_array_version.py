"""What the Numba kernels leave to the array operations is listed, counted, and goes through one helper."""

import ast
from pathlib import Path

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np import kernels, layers, ops
from alexnet_np.backend import use_backend
from alexnet_np.kernels.array_version import LEFT, array_version, times_left
from alexnet_np.models import AlexNet
from alexnet_np.ops.sgd import Step

ROWS, IMAGES = np.ones((3, 5)), np.ones((2, 3, 4, 4))

CASES = {  # op -> a call that its kernel leaves: float64, or what else LEFT names
    "relu": lambda: ops.relu.forward(ROWS)[0],
    "dropout": lambda: ops.dropout.forward(ROWS, p=0.5, seed=1)[0],
    "linear": lambda: ops.linear.forward(ROWS, np.ones((4, 5)))[0],
    "local_response_norm": lambda: ops.local_response_norm.forward(IMAGES, size=3, beta=0.6)[0],
    "cross_entropy": lambda: ops.cross_entropy.forward(ROWS, np.array([0, 1, 2]))[0],
    "sgd": lambda: ops.sgd.update(ROWS.copy(), ROWS, None, Step(lr=0.1)),
}


def test_every_op_that_leaves_something_is_tried():
    assert {*CASES, "max_pool2d"} == set(LEFT)


@pytest.mark.parametrize("op", CASES)
def test_a_case_that_is_left_is_counted_and_computed_by_the_arrays(op):
    expected, before = CASES[op](), times_left[op]
    with use_backend("numba"):
        result = CASES[op]()
    assert times_left[op] == before + 1
    assert (result is expected is None) or np.array_equal(result, expected)


def test_a_plan_leaves_windows_with_gaps():
    features = [layers.Conv2d(1, 4, 3), layers.MaxPool2d(2, 1, dilation=2)]
    model = AlexNet("mine", features, layers.Identity(), [layers.Linear(4 * 4 * 4, 3)], seed=0).eval()
    plan, x = anp.compile(model, max_batch=1, size=8), np.ones((1, 1, 8, 8), np.float32)
    before = times_left["max_pool2d"]
    np.testing.assert_allclose(plan(x), model(x), rtol=1e-4)
    assert times_left["max_pool2d"] == before + 1


def test_what_a_kernel_takes_is_not_counted():
    before = dict(times_left)
    with use_backend("numba"):
        ops.relu.forward(ROWS.astype(np.float32))
    assert dict(times_left) == before


def test_an_op_that_says_nothing_of_it_is_refused():
    with pytest.raises(KeyError, match="softmax leaves nothing"):
        array_version("softmax")


def test_no_kernel_reaches_an_array_version_by_another_way():
    """A kernel may use an op's types, constants and helpers, but not what computes the op."""
    computes = {"compute", "gradients", "forward", "backward"}
    for file in Path(kernels.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        from_ops = {a.asname or a.name for node in imports if node.module == "alexnet_np.ops" for a in node.names}
        from_op = {a.name for node in imports if node.module.startswith("alexnet_np.ops.") for a in node.names}
        called = {n.attr for n in nodes if isinstance(n, ast.Attribute) and getattr(n.value, "id", None) in from_ops}
        assert not (called | from_op) & computes, file.name
