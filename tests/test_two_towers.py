"""The towers of 2012 on two processes, which two threads stand for, beside the network by itself."""

from typing import Any

import numpy as np
import pytest
from thread_groups import Hall, Stood, everybody

import alexnet_np as anp
from alexnet_np.layers import LocalResponseNorm
from alexnet_np.training.config import Config
from alexnet_np.training.parallel.sharded import share_of
from alexnet_np.training.parallel.two_towers import TwoTowers, reach
from alexnet_np.training.sgd import SGD
from alexnet_np.training.stepping import Stepper

CONFIG = Config(parallel="towers")
PRESETS = ("paper", "krizhevsky145", "bvlc", "caffenet", "onnx")
SIDE, CLASSES, SAMPLES = 79, 7, 5


def a_net(preset: str, dtype: str, width: float = 1 / 8) -> tuple[anp.AlexNet, SGD]:
    net = anp.alexnet(preset, width=width, num_classes=CLASSES, seed=0, dtype=dtype, backend="numba").train()
    for _, layer in net.leaves():
        if isinstance(layer, LocalResponseNorm):
            layer.alpha = 0.3  # so that a neighbour's map matters
    return net, SGD(net.named_parameters(), 0.02, momentum=0.9, weight_decay=1e-3, backend="numba")


def a_batch(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((SAMPLES, 3, SIDE, SIDE)).astype(dtype), rng.integers(0, CLASSES, SAMPLES)


def trained(stepper: Any, net: anp.AlexNet, optimizer: SGD, dtype: str, steps: int = 3) -> tuple[list, dict]:
    """What the steps said, and all that came of them."""
    with anp.use_backend("numba"):
        done = [stepper(*a_batch(dtype), lambda loss: None) for _ in range(steps)]
    return done, net.state_dict() | {f"momentum.{name}": v for name, v in optimizer.velocities.items()}


def towers(group: Stood, preset: str, dtype: str, width: float = 1 / 8) -> Any:
    net, optimizer = a_net(preset, dtype, width)
    stepper = TwoTowers(net, optimizer, group, CONFIG)
    done, own = trained(stepper, net, optimizer, dtype)
    whole = stepper.gathered(own)
    assert all(np.array_equal(stepper.cut(whole)[name], array) for name, array in own.items())
    net.eval()
    with anp.no_grad(), anp.use_backend("numba"):
        return done, whole, stepper.whole(net(a_batch(dtype)[0])), sum(p.size for p in net.parameters())


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("preset", PRESETS)
def test_two_towers_are_the_network_but_for_rounding(preset: str, dtype: str, limit: float) -> None:
    net, optimizer = a_net(preset, dtype)
    done, whole = trained(Stepper(net, optimizer, "numpy", SAMPLES), net, optimizer, dtype)
    net.eval()
    with anp.no_grad(), anp.use_backend("numba"):
        logits = net(a_batch(dtype)[0])
    ends = everybody(2, lambda group: towers(group, preset, dtype))
    assert sum(own for *_, own in ends) == sum(p.size for p in net.parameters()), "no weight is in two places"
    for said, tensors, found, _ in ends:
        np.testing.assert_allclose([d.loss for d in said], [d.loss for d in done], rtol=limit)
        assert [d.correct for d in said] == [d.correct for d in done]
        assert tensors.keys() == whole.keys()
        for name, array in whole.items():
            assert tensors[name].shape == array.shape
            assert abs(tensors[name] - array).max() <= limit * abs(array).max(), name
        assert abs(found - logits).max() <= 10 * limit * abs(logits).max()


@pytest.mark.parametrize("preset", ["paper", "bvlc"])
def test_they_repeat_to_the_bit(preset: str) -> None:
    one, other = (everybody(2, lambda group: towers(group, preset, "float32")) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        assert first[0] == second[0]
        assert all(np.array_equal(first[1][name], second[1][name]) for name in first[1])


def test_towers_narrower_than_the_normalisation_looks() -> None:
    """Three maps each, where a window's neighbours' windows reach over four."""
    net, optimizer = a_net("bvlc", "float64", 1 / 16)
    _, whole = trained(Stepper(net, optimizer, "numpy", SAMPLES), net, optimizer, "float64")
    assert reach(net.features[2], 3) == (3, 2)
    for _, tensors, *_ in everybody(2, lambda group: towers(group, "bvlc", "float64", 1 / 16)):
        for name, array in whole.items():
            assert abs(tensors[name] - array).max() <= 1e-12 * abs(array).max(), name


def test_frozen_parts_stay_and_nothing_goes_back_through_them() -> None:
    def work(group: Any) -> Any:
        net, optimizer = a_net("paper", "float64")
        net.freeze("features")
        stepper = (
            Stepper(net, optimizer, "numpy", SAMPLES) if group is None else TwoTowers(net, optimizer, group, CONFIG)
        )
        done, tensors = trained(stepper, net, optimizer, "float64")
        return done, tensors if group is None else stepper.gathered(tensors)

    done, whole = work(None)
    for said, tensors in everybody(2, work):
        np.testing.assert_allclose([d.loss for d in said], [d.loss for d in done], rtol=1e-12)
        assert tensors.keys() == whole.keys() and not any(name.startswith("momentum.features") for name in tensors)
        for name, array in whole.items():
            assert abs(tensors[name] - array).max() <= 1e-12 * abs(array).max(), name


@pytest.mark.parametrize(
    ("preset", "processes", "match"),
    [
        ("torchvision", 2, "for networks that have two: paper, krizhevsky145, bvlc, caffenet, onnx; 'torchvision' has"),
        ("paper", 4, "for 2 processes, one a tower, got 4: give mpirun -n 2"),
    ],
)
def test_what_has_no_two_towers_is_refused(preset: str, processes: int, match: str) -> None:
    net = anp.alexnet(preset, width=1 / 16, seed=0)
    with pytest.raises(anp.ArgumentError, match=match):
        TwoTowers(net, SGD(net.named_parameters(), 0.1), Stood(Hall(processes), 0), CONFIG)


def test_each_has_the_whole_batch_and_no_shards() -> None:
    assert share_of(CONFIG, Stood(Hall(2), 1)).rows(9) == slice(0, 9)
    with pytest.raises(anp.ArgumentError, match="parallel 'towers' cuts no batch into shards; leave shards out"):
        share_of(Config(parallel="towers", shards=2), Stood(Hall(2), 1))
