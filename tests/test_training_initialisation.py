"""The initialisations beside torch's own, and beside the published numbers."""

import math

import numpy as np
import pytest
import torch

import alexnet_np as anp
from alexnet_np.initialisation import SCHEMES, initialise
from alexnet_np.layers import Linear

LAYERS = ["features.0", "features.4", "features.8", "features.10", "features.12"]
LAYERS += ["classifier.0", "classifier.3", "classifier.6"]  # of "paper"


@pytest.fixture(scope="module")
def net():
    return anp.alexnet("paper", width=0.25, num_classes=100, seed=0)


def filled(net, scheme, seed=1):
    initialise(net.named_parameters(), seed, scheme)
    return {name: p.data.copy() for name, p in net.named_parameters()}


@pytest.mark.parametrize(("scheme", "raised"), [("paper", 1.0), ("caffe", np.float32(0.1))])
def test_published_constants(net, scheme, raised):
    state = filled(net, scheme)
    for number, layer in enumerate(LAYERS, 1):
        assert (state[f"{layer}.bias"] == (raised if number in (2, 4, 5, 6, 7) else 0)).all(), layer
        std = 0.005 if scheme == "caffe" and number in (6, 7) else 0.01
        weight = state[f"{layer}.weight"]
        assert weight.std() == pytest.approx(std, rel=4 / math.sqrt(weight.size)), layer
        assert abs(weight.mean()) < 5 * std / math.sqrt(weight.size)


@pytest.mark.parametrize(
    ("scheme", "torchs"),
    [("xavier", torch.nn.init.xavier_uniform_), ("kaiming", torch.nn.init.kaiming_normal_), ("torch", None)],
)
def test_spread_as_torchs(net, scheme, torchs):
    state = filled(net, scheme)
    for layer in LAYERS:
        weight, bias = state[f"{layer}.weight"], state[f"{layer}.bias"]
        theirs = torch.empty(weight.shape)
        fan_in = weight[0].size
        if torchs is None:
            torch.nn.init.kaiming_uniform_(theirs, a=math.sqrt(5))  # what torch.nn's layers call
            assert 0.8 / math.sqrt(fan_in) < abs(bias).max() <= 1 / math.sqrt(fan_in) or bias.size < 50
        else:
            torchs(theirs)
            assert not bias.any()
        noise = 6 / math.sqrt(weight.size)
        assert weight.std() == pytest.approx(theirs.std().item(), rel=noise), layer
        if scheme != "kaiming":  # a uniform distribution has an edge, which says more than its spread
            assert abs(weight).max() == pytest.approx(abs(theirs).max().item(), rel=noise), layer


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_seed_decides(net, scheme):
    first, again, other = filled(net, scheme), filled(net, scheme), filled(net, scheme, seed=2)
    double = filled(anp.alexnet("paper", width=0.25, num_classes=100, seed=0, dtype="float64"), scheme)
    for name, data in first.items():
        assert data.dtype == np.float32
        assert np.array_equal(data, again[name])
        assert np.array_equal(data, double[name])
        assert not name.endswith("weight") or (data != other[name]).mean() > 0.99
    weights = [data.reshape(-1)[:2000] for name, data in first.items() if name.endswith("weight")]
    assert abs(np.corrcoef(weights) - np.eye(8)).max() < 0.12, "each parameter has a stream of its own"


def test_unknown_and_empty():
    with pytest.raises(
        anp.ArgumentError, match="choose one of torch, paper, krizhevsky145, caffe, caffenet, xavier, kaiming"
    ):
        initialise([], 0, "glorot")
    head = Linear(0, 3)
    for scheme in SCHEMES:
        initialise(head.named_parameters(), 0, scheme)
        assert head.weight.shape == (3, 0) and not head.bias.data.any()
