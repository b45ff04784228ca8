"""The whole network's inference: our plan (and exact plan, and eager) beside PyTorch, ONNX Runtime and OpenVINO.

    alexnet bench model [--batch 1 --batch 32 --batch 128] [--preset torchvision] [--reduced] [--out FILE]

Every contender has the same weights and the same images, runs in float32 on the same cores, and is verified against
the array operations in float64 before anything is timed. Who computes or keeps numbers in fewer bits says so in its
name, and no ratio is of its time: int16 dense weights of ours; with --reduced the peers' own modes (runtimes.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import alexnet_np as anp
from alexnet_np import plan
from alexnet_np.backend import available_backends
from alexnet_np.measure import runtimes
from alexnet_np.measure.harness import Contender, Run, Work, attempt, relative_error
from alexnet_np.models import AlexNet
from alexnet_np.study.summary import summary

LOGITS = 1e-4  # largest error relative to the largest logit
REDUCED = 0.3  # of the norm, where numbers have fewer bits; other weights give about 1.4
INT16 = "plan, int16 dense weights"
TRUTHS = 4  # images that are computed in float64: enough to catch a wrong contender, and quick


def works(batch: int, preset: str = "torchvision", reduced: bool = False) -> list[Work]:
    model = anp.alexnet(preset, seed=0).eval()
    x = np.random.default_rng(0).standard_normal((batch, model.in_channels, 224, 224), dtype=np.float32)
    double = anp.alexnet(preset, dtype="float64", weights=model.state_dict()).eval()
    with anp.no_grad():
        truth = double(x[:TRUTHS].astype(np.float64))
    counted = summary(model, x.shape)

    def check(logits: Any) -> None:
        error = np.abs(np.asarray(logits)[:TRUTHS] - truth).max() / np.abs(truth).max()
        assert error < LOGITS, f"a contender's logits are wrong: relative error {error:.1e}"

    def error(logits: Any) -> float:
        return relative_error(np.asarray(logits)[:TRUTHS], truth)

    makers: dict[str, Callable[[], Run]] = {
        "plan": lambda: ours(lambda: plan.compile(model, max_batch=batch), x),
        INT16: lambda: ours(lambda: plan.compile(model, max_batch=batch, dense="int16"), x),
        "plan, exact": lambda: ours(lambda: plan.compile(model, max_batch=batch, exact=True), x),
        "eager numba": lambda: ours(lambda: eager(preset, model), x),
        "torch contiguous": lambda: runtimes.torch_runner(model, x, "contiguous_format"),
        "torch channels_last": lambda: runtimes.torch_runner(model, x, "channels_last"),
        "torch compiled": lambda: runtimes.torch_runner(model, x, "channels_last", compiled=True),
        "onnxruntime": lambda: runtimes.onnx_runner(model, x),
        "openvino": lambda: runtimes.openvino_runner(model, x),
    }
    contenders = [Contender(name, *attempt(make), reduced=name == INT16) for name, make in makers.items()]
    if reduced:
        contenders += fewer_bits(model, x, error)
    moved = x.nbytes + 4.0 * counted.parameters
    name, flops = f"inference, {preset}, batch {batch}", 2.0 * counted.macs
    return [Work(name, flops, moved, contenders, check, error=error, images=batch)]


def fewer_bits(model: AlexNet, x: np.ndarray, error: Callable[[Any], float]) -> list[Contender]:
    """The peers' own reduced modes. They are allowed more than rounding, but not another network's logits."""

    def check(logits: Any) -> None:
        assert error(logits) < REDUCED, f"a contender's logits are wrong: relative error {error(logits):.1e}"

    makers = runtimes.reduced(model, x)
    return [Contender(name, *attempt(make), reduced=True, check=check) for name, make in makers.items()]


def ours(build: Callable[[], Callable[[Any], Any]], x: np.ndarray) -> Run:
    usable = available_backends()["numba"]
    if usable is not True:
        return None, str(usable)
    runner = build()
    return lambda: runner(x), ""


def eager(preset: str, model: AlexNet) -> Callable[[Any], Any]:
    own = anp.alexnet(preset, weights=model.state_dict(), backend="numba").eval()

    def run(x: np.ndarray) -> Any:
        with anp.no_grad():
            return own(x)

    return run
