"""Anything at all as an argument of any public function: only our own errors come out, and TypeErrors of Python's for
arguments that are missing.

Each case is a function with arguments that are right, and the names of options; some of both are replaced by what
nobody should give. A call must also end: no argument makes one run for long, or take more memory than there is.
"""

import time
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import alexnet_np as anp
from alexnet_np import layers, ops
from alexnet_np.training.config import Config
from alexnet_np.training.loop import Trainer
from alexnet_np.training.schedules import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

LONGEST = 20  # seconds of a call, on a busy machine

ODD = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 2, 3, 7, 2**31, 2**62, 2**63, 2**64, -(2**63), 10**30, 1j, 0.5, -0.0, 2.5]),
    st.floats(width=32),
    st.sampled_from([np.float32(2), np.int64(2), np.nan, np.inf, np.array("a"), np.array(3), np.datetime64("2012")]),
    st.sampled_from(["", "a", "1/8", "cpu", "same", "mean", "\n", "\0", "features.0", "numpy", "float32", b"x"]),
    st.sampled_from([(), (3, 2), (1, "a"), (2, 2, 2, 2), range(2), id, anp.ops, object(), int, Ellipsis, slice(2)]),
    st.builds(list), st.builds(dict), st.builds(set), st.just([2, 2]), st.just({"a": 1}), st.just([[1], [2, 3]]),
    st.sampled_from([(2, 3, 8, 8), (2, 3), (0, 2), (4, 3, 3, 3), (1, 3, 64, 64), (3,), ()]).map(
        lambda shape: np.ones(shape, np.float32)
    ),
    st.sampled_from(["uint8", "int64", "float64", "complex64", "bool", "object", "U2", "float16"]).map(
        lambda dtype: np.ones((1, 3, 64, 64), dtype)
    ),
    st.builds(layers.ReLU), st.builds(lambda: layers.Linear(3, 2, seed=0)),
)  # fmt: skip


def model():
    return anp.alexnet(width=1 / 64, num_classes=3, seed=0)


def optimizer():
    return anp.SGD(model().named_parameters(), lr=0.1)


IMAGE = np.ones((1, 3, 64, 64), np.float32)
SMALL = np.ones((2, 3, 8, 8), np.float32)
ROWS = np.ones((4, 3), np.float32)


def method(name, make=model):
    return lambda *given, **options: getattr(make(), name)(*given, **options)


def after_forward(op, *inputs):
    """The op's backward with the cache of a forward, unless another cache is given."""
    cache = getattr(ops, op).forward(*inputs)[1]
    return lambda dy, cache=cache, **options: getattr(ops, op).backward(dy, cache, **options)


def network(preset="torchvision", **options):
    """A network, but never a large one: a width of 7 is no mistake, and takes its time."""
    if isinstance(options.get("width"), int | float | np.number) and 0.2 < options["width"] < 99:
        del options["width"]
    return anp.alexnet(preset, **{"width": 1 / 64, "num_classes": 3, **options})


def of_model(function):
    """With a model as the first argument, unless something else is given for it."""
    return lambda first, *given, **options: function(model() if first is None else first, *given, **options)


def training(first, second, *given, **options):
    network = model()
    own = anp.SGD(network.named_parameters(), lr=0.1)
    return anp.compile_training(
        network if first is None else first, own if second is None else second, *given, **options
    )


def of_optimizer(schedule):
    return lambda first, *given, **options: schedule(optimizer() if first is None else first, *given, **options)


def trainer(config, folder=None, **options):
    return Trainer(Config(dataset="synthetic", limit=8, width=1 / 64) if config is None else config, None, **options)


def run(**options):
    return Config(**{"dataset": "synthetic", **options})


FUNCTIONS = {
    "alexnet": (network, ("torchvision",), "weights num_classes in_channels width dtype seed backend"),
    "conv2d": (ops.conv2d.forward, (SMALL, np.ones((4, 3, 3, 3), np.float32)), "bias stride padding dilation groups"),
    "max_pool2d": (ops.max_pool2d.forward, (SMALL, 2), "stride padding dilation ceil_mode"),
    "adaptive_avg_pool2d": (ops.adaptive_avg_pool2d.forward, (SMALL, 2), ""),
    "relu": (ops.relu.forward, (SMALL,), ""),
    "tanh": (ops.tanh.forward, (SMALL,), ""),
    "sigmoid": (ops.sigmoid.forward, (SMALL,), ""),
    "lrn": (ops.local_response_norm.forward, (SMALL, 3), "alpha beta k convention region groups"),
    "lrn convert": (ops.local_response_norm.convert, (5, 1e-4, 0.75, 2.0), "source target"),
    "dropout": (ops.dropout.forward, (SMALL,), "p training seed mask"),
    "linear": (ops.linear.forward, (ROWS, ROWS), "bias"),
    "softmax": (ops.softmax.forward, (ROWS,), "dim"),
    "log_softmax": (ops.log_softmax.forward, (ROWS,), "dim"),
    "flatten": (ops.flatten.forward, (SMALL,), "start_dim end_dim"),
    "cross_entropy": (
        ops.cross_entropy.forward, (ROWS, np.zeros(4, int)), "weight ignore_index reduction label_smoothing"
    ),
    "conv2d backward": (after_forward("conv2d", SMALL, np.ones((4, 3, 3, 3), np.float32)), (SMALL,), "cache needs"),
    "max_pool2d backward": (after_forward("max_pool2d", SMALL, 2), (SMALL,), "cache"),
    "linear backward": (after_forward("linear", ROWS, ROWS), (ROWS,), "cache needs"),
    "softmax backward": (after_forward("softmax", ROWS), (ROWS,), "cache"),
    "cross_entropy backward": (after_forward("cross_entropy", ROWS, np.zeros(4, int)), (1.0,), "cache"),
    "lrn backward": (after_forward("local_response_norm", SMALL, 3), (SMALL,), "cache"),
    "Linear": (layers.Linear, (3, 2), "bias seed"),
    "Conv2d": (layers.Conv2d, (3, 2, 3), "stride padding dilation groups bias seed"),
    "MaxPool2d": (layers.MaxPool2d, (3,), "stride padding dilation ceil_mode"),
    "AdaptiveAvgPool2d": (layers.AdaptiveAvgPool2d, (3,), ""),
    "Dropout": (layers.Dropout, (), "p seed"),
    "LocalResponseNorm": (layers.LocalResponseNorm, (3,), "alpha beta k convention region groups"),
    "Flatten": (layers.Flatten, (), "start_dim end_dim"),
    "Sequential": (layers.Sequential, ([],), ""),
    "use_backend": (anp.use_backend, ("numpy",), ""),
    "set_num_threads": (anp.set_num_threads, (anp.get_num_threads(),), ""),
    "preprocess": (
        anp.preprocess, (np.zeros((9, 9, 3), np.uint8),),
        "preset model resize_size crop_size mean std dtype like_torchvision",
    ),
    "summary": (of_model(anp.summary), (None,), "input_shape"),
    "walk": (of_model(anp.walk), (None, IMAGE), ""),
    "compile": (of_model(anp.compile), (None, 1), "outputs exact size precision"),
    "compile_training": (training, (None, None, 1), "size label_smoothing precision"),
    "explain": (of_model(anp.study.explain), (None, IMAGE, "features.0", 0), ""),
    **{
        f"attribution {name}": (of_model(anp.study.attribution), (None, IMAGE, 0, name), f"tick {options}")
        for name, options in [
            ("saliency", ""), ("guided_backprop", ""), ("deconvnet", ""), ("grad_cam", "layer placed"),
            ("occlusion", "window stride baseline"), ("smooth_grad", "samples noise seed"),
            ("integrated_gradients", "steps baseline"),
        ]
    },
    "receptive_field": (of_model(anp.study.receptive_field), (None, "features.0", 0, 64), ""),
    "SGD": (
        anp.SGD, ([("w", layers.Linear(2, 2, seed=0).weight)], 0.1),
        "momentum dampening weight_decay nesterov rule backend",
    ),
    "SGD.load_state_dict": (method("load_state_dict", optimizer), ({},), ""),
    "StepLR": (of_optimizer(StepLR), (None, 3), "gamma"),
    "CosineAnnealingLR": (of_optimizer(CosineAnnealingLR), (None, 3), "eta_min"),
    "OneCycleLR": (of_optimizer(OneCycleLR), (None, 0.1, 3), "pct_start div_factor final_div_factor"),
    "ReduceLROnPlateau": (
        of_optimizer(ReduceLROnPlateau), (None,), "mode factor patience threshold cooldown min_lr"
    ),
    "Config": (run, (), " ".join(Config.__dataclass_fields__)),
    "Trainer": (trainer, (None,), "workers keep save_every cache"),
    "Trainer.resume": (Trainer.resume, ("no-such-folder",), "asked"),
    "read": (anp.weights.read, ("no-such-file",), "part"),
    "write": (anp.weights.write, ("no-such-folder/x.npz", {}), "opset size metadata"),
    "inspect": (anp.weights.inspect, ("no-such-file",), ""),
    "match": (anp.weights.match, ({}, {}), "strict"),
    "check_finite": (anp.weights.check_finite, ({},), ""),
    "find": (anp.weights.find, ("FASHION_MNIST_V1",), ""),
    "load": (anp.weights.load, ("FASHION_MNIST_V1",), ""),
    **{
        f"model.{name}": (method(name), given, options)
        for name, given, options in [
            ("__call__", (IMAGE,), ""), ("forward", (IMAGE,), ""), ("backward", (ROWS,), "input_grad retain_graph"),
            ("replace_head", (3,), "seed"), ("freeze", ("features",), ""), ("astype", ("float32",), ""),
            ("to", ("numpy",), ""), ("train", (True,), ""), ("load_state_dict", ({},), "strict"),
            ("output_shape", ((1, 3, 64, 64),), ""), ("requires_grad_", (True,), ""), ("macs", ((1, 3, 64, 64),), ""),
            ("num_parameters", (True,), ""), ("register_forward_hook", (print,), ""),
            ("register_forward_pre_hook", (print,), ""), ("register_full_backward_hook", (print,), ""),
        ]
    },
    "model.classifier[]": (lambda *given: model().classifier.__getitem__(*given), (0,), ""),
    "model.classifier[] =": (lambda *given: model().classifier.__setitem__(*given), (6, layers.ReLU()), ""),
    "Sequential.append": (lambda *given: layers.Sequential().append(*given), (layers.ReLU(),), ""),
}  # fmt: skip


def check_call(data):
    function, given, options = FUNCTIONS[data.draw(st.sampled_from(sorted(FUNCTIONS)))]
    rarely = st.integers(0, 2).map(lambda n: n == 0)
    places = [data.draw(ODD) if data.draw(rarely) else value for value in given]
    named = {option: data.draw(ODD) for option in options.split() if data.draw(rarely)}
    begun = time.monotonic()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            function(*places, **named)
    except anp.AlexNetError as error:
        assert str(error) and "\n" not in str(error)
    except TypeError as error:
        assert "argument" in str(error) and ("missing" in str(error) or "unexpected" in str(error)), error
    assert time.monotonic() - begun < LONGEST


COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


@settings(max_examples=400, derandomize=True, **COMMON)
@given(st.data())
def test_wrong_arguments_end_in_our_errors(data):
    check_call(data)


@pytest.mark.slow
@settings(max_examples=10_000, **COMMON)
@given(st.data())
def test_ten_thousand_wrong_calls_end_in_our_errors(data):
    check_call(data)
