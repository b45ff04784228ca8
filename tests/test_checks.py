"""What every op asks of its arrays and its gradient, op by op: kind, dtype, device, shape."""

import numpy as np
import pytest
import torch
from oracles import refused

from alexnet_np import ops
from alexnet_np.arguments import pair
from alexnet_np.errors import ArgumentError, DtypeError, ShapeError

# op: its float arrays, then everything else
CALLS = {
    "adaptive_avg_pool2d": ([(2, 3, 8, 8)], {"output_size": 4}),
    "avg_pool2d": ([(2, 3, 8, 8)], {"kernel_size": 2}),
    "conv2d": ([(2, 3, 8, 8), (4, 3, 3, 3), (4,)], {}),
    "cross_entropy": ([(4, 5)], {"target": np.zeros(4, int)}),
    "dropout": ([(4, 5)], {"seed": 0}),
    "flatten": ([(4, 5)], {}),
    "linear": ([(4, 5), (3, 5), (3,)], {}),
    "local_response_norm": ([(2, 3, 4)], {"size": 3}),
    "log_softmax": ([(4, 5)], {}),
    "max_pool2d": ([(2, 3, 8, 8)], {"kernel_size": 2}),
    "relu": ([(4, 5)], {}),
    "sigmoid": ([(4, 5)], {}),
    "softmax": ([(4, 5)], {}),
    "tanh": ([(4, 5)], {}),
}
OPS = pytest.mark.parametrize("name", CALLS)


def arguments(name, dtype="float32"):
    shapes, keywords = CALLS[name]
    return [np.ones(shape, dtype) for shape in shapes], keywords


def test_every_op_is_listed():
    assert sorted(CALLS) == sorted(name for name in ops.__all__ if hasattr(getattr(ops, name), "forward"))


@OPS
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float16", "complex64", "longdouble", ">f4"])
def test_refuses_other_dtypes(name, dtype):
    arrays, keywords = arguments(name, dtype)
    with refused(DtypeError, f"is {arrays[0].dtype}; convert it, e.g. .*astype"):
        getattr(ops, name).forward(*arrays, **keywords)


@OPS
@pytest.mark.parametrize("thing", [[[1.0, 2.0]], 1.0, None, "x"])
def test_refuses_what_is_no_array(name, thing):
    arrays, keywords = arguments(name)
    with refused(DtypeError, f"{name}: \\w+ must be an array, got {type(thing).__name__}"):
        getattr(ops, name).forward(thing, *arrays[1:], **keywords)


@pytest.mark.parametrize("name", ["conv2d", "linear"])
@pytest.mark.parametrize("position", [1, 2])
def test_refuses_mixed_dtypes(name, position):
    arrays, keywords = arguments(name)
    arrays[position] = arrays[position].astype("float64")
    with refused(DtypeError, f"{name}: x is float32 but {['weight', 'bias'][position - 1]} is float64; use one dtype"):
        getattr(ops, name).forward(*arrays, **keywords)


@pytest.mark.parametrize("name", ["conv2d", "linear"])
def test_only_the_bias_may_be_missing(name):
    arrays, keywords = arguments(name)
    getattr(ops, name).forward(arrays[0], arrays[1], None, **keywords)
    with refused(DtypeError, f"{name}: weight must be an array, got NoneType"):
        getattr(ops, name).forward(arrays[0], None, **keywords)


@OPS
def test_backward_refuses_another_shape_and_another_dtype(name):
    arrays, keywords = arguments(name)
    y, cache = getattr(ops, name).forward(*arrays, **keywords)
    with refused(ShapeError, f"{name} backward: dy has shape"):
        getattr(ops, name).backward(np.ones((*y.shape, 2), "float32"), cache)
    with refused(DtypeError, f"{name} backward: dy is float64 but x is float32"):
        getattr(ops, name).backward(np.ones(y.shape), cache)
    with refused(DtypeError, "dy must be an array, got list"):
        getattr(ops, name).backward([[1.0]], cache)


@OPS
def test_takes_torch_tensors_and_other_lenders_of_memory(name):
    arrays, keywords = arguments(name)
    op = getattr(ops, name)
    want, cache = op.forward(*arrays, **keywords)
    dy = np.full(want.shape, 2, "float32")
    gradients = op.backward(dy, cache)

    class Lender:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    for wrap in (torch.from_numpy, Lender):
        y, cache = op.forward(*(wrap(a) for a in arrays), **keywords)
        assert isinstance(y, np.ndarray) and np.array_equal(y, want)
        for got, known in zip(op.backward(wrap(dy), cache), gradients, strict=True):
            assert np.array_equal(got, known)


def test_torch_tensors_are_not_copied():
    tensor = torch.zeros(2, 3)
    assert np.shares_memory(ops.flatten.forward(tensor, 0)[0], tensor.numpy())


def test_channels_last_tensors_keep_their_shape():
    tensor = torch.randn(2, 4, 8, 6).to(memory_format=torch.channels_last)
    y, _ = ops.max_pool2d.forward(tensor, 2)
    assert np.array_equal(y, torch.nn.functional.max_pool2d(tensor, 2).numpy())


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3, requires_grad=True), torch.zeros(3, dtype=torch.bfloat16), torch.zeros(3, device="meta")]
)
def test_tensors_that_cannot_be_lent_are_named(tensor):
    with refused(DtypeError, "relu: x: a Tensor that cannot be read as an array: "):
        ops.relu.forward(tensor)


def test_pair():
    assert pair("op", "stride", 3, 1) == (3, 3)
    assert pair("op", "stride", [3], 1) == (3, 3)
    assert pair("op", "stride", np.array([3, 4]).tolist(), 1) == (3, 4)
    assert pair("op", "stride", (np.int64(3), np.uint8(4)), 1) == (3, 4)
    for bad in ((), (1, 2, 3), "12", None, 1.0):
        with refused(ArgumentError, "op: stride must be an int or a pair of ints, got "):
            pair("op", "stride", bad, 1)
