"""What processes send each other: the bytes counted are those of the formula; and `alexnet summary --parallel`."""

from typing import Any

import numpy as np
import pytest
from command_line import fails, run, run_json
from thread_groups import Stood, everybody

import alexnet_np as anp
from alexnet_np.layers import Linear
from alexnet_np.training.config import Config
from alexnet_np.training.parallel.counted import Counted, Meter
from alexnet_np.training.parallel.sharded import Sharded, Shared, share_of
from alexnet_np.training.parallel.traffic import terms
from alexnet_np.training.parallel.two_towers import TwoTowers
from alexnet_np.training.parallel.weird import Weird
from alexnet_np.training.sgd import SGD

SCHEMES: dict[str, Any] = {"data": Sharded, "weird": Weird, "towers": TwoTowers}
SIDE, CLASSES = 79, 7


def total(model: anp.AlexNet, batch: int, parallel: str, processes: int) -> int:
    return sum(term.bytes for term in terms(model, (batch, 3, SIDE, SIDE), parallel, processes))


def freeze(model: anp.AlexNet, parts: int) -> None:
    first = next(name for name, layer in model.leaves() if isinstance(layer, Linear))
    for prefix in ("features", f"{first}.")[:parts]:
        model.freeze(prefix)


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["all", "dense", "behind the first dense"])
@pytest.mark.parametrize(
    ("parallel", "processes", "preset", "options"),
    [
        ("data", 2, "torchvision", {}),
        ("data", 4, "torchvision", {"reduce": "fast", "dtype": "float64"}),
        ("weird", 2, "torchvision", {"dtype": "float64"}),
        ("weird", 3, "paper", {}),
        ("towers", 2, "paper", {}),
        ("towers", 2, "bvlc", {"dtype": "float64"}),
    ],
)
def test_what_is_counted_is_the_formula(
    parallel: str, processes: int, preset: str, options: dict[str, str], frozen: int
) -> None:
    shards = processes if parallel == "data" else 1
    config = Config(parallel=parallel, shards=shards, preset=preset, **options)
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((6, 3, SIDE, SIDE)).astype(config.dtype), rng.integers(0, CLASSES, 6)

    def work(group: Stood) -> dict[str, Any]:
        net = anp.alexnet(preset, width=1 / 16, num_classes=CLASSES, seed=0, dtype=config.dtype, backend="numba")
        freeze(net, frozen)
        optimizer = SGD([(n, p) for n, p in net.named_parameters() if p.requires_grad], 0.01, backend="numba")
        counted = Counted(group)
        meter = Meter(counted, net, (3, SIDE, SIDE), parallel, lambda: 0.0)
        step: Shared = SCHEMES[parallel](net, optimizer, counted, config)
        with anp.use_backend("numba"):
            for samples in (6, 6, 5):
                batch, classes = x[:samples], target[:samples]
                with meter.step(samples):
                    step(batch[share_of(config, counted).rows(samples)], classes, lambda loss: None)
        found = meter.read()
        assert meter.read()["steps"] == 0, "begun anew"
        return found

    ends = everybody(processes, work)
    model = anp.alexnet(preset, width=1 / 16, num_classes=CLASSES, seed=0, dtype=config.dtype)
    freeze(model, frozen)
    expected = 2 * total(model, 6, parallel, processes) + total(model, 5, parallel, processes)
    for found in ends:
        assert found["bytes"] == found["formula"] == expected > 0
        assert found["steps"] == 3 and found["processes"] == processes and 0 < found["waited"] < 1


def test_towers_send_what_one_process_with_both_counts() -> None:
    model = anp.alexnet("krizhevsky145", seed=0)
    sent = terms(model, (1, 3, 224, 224), "towers", 2)
    assert sum(term.bytes for term in sent) == 2 * 58_624 * 4
    values = [term.bytes // 8 for term in sent]
    assert values == [256 * 13 * 13, 256 * 6 * 6, 4096, 2048], "conv 3, and the dense layers: figure 2"


def test_one_weird_trick_sends_less_up_to_some_3274_images() -> None:
    model = anp.alexnet("torchvision", seed=0)
    more = {batch: sum(t.bytes for t in terms(model, (batch, 3, 224, 224), "weird", 2)) for batch in (3274, 3275)}
    data = sum(t.bytes for t in terms(model, (1, 3, 224, 224), "data", 2))
    assert more[3274] <= data < more[3275]


def test_summary_says_what_a_step_sends() -> None:
    command = ["summary", "--preset", "paper", "--width", "0.125", "--parallel", "towers", "--batch", "4"]
    model = anp.alexnet("paper", width=1 / 8, seed=0)
    expected = terms(model, (4, 3, 224, 224), "towers", 2)
    found = run_json(*command)
    assert found["exchange"]["bytes"] == sum(term.bytes for term in expected)
    assert found["exchange"]["terms"] == [term._asdict() for term in expected]
    shown = run(*command).stdout
    assert "maps of features.8, and back" in shown and f"{expected[0].bytes:,}" in shown
    assert "exchange" not in run_json(*command[:-4])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--parallel", "rings"], "--parallel must be one of data, weird, towers, got 'rings'"),
        (["--parallel", "towers"], "'torchvision' has one, take data or weird"),
        (["--preset", "paper", "--parallel", "towers", "--ranks", "4"], "for 2 processes, one a tower, got 4"),
        (["--parallel", "data", "--ranks", "3"], "parallel 'data' takes 2, 4, 8 ... processes"),
        (["--parallel", "data", "--compare", "paper"], "--parallel is of one network; leave --compare out"),
    ],
)
def test_wrong_schemes_are_one_line(options: list[str], said: str) -> None:
    assert said in fails("summary", *options)
