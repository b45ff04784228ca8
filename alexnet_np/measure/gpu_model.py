"""The whole network's inference on a GPU: ours eager and as a plan, beside PyTorch in every way it is made fast.

    alexnet bench model --device gpu [--batch 1 --batch 128] [--preset torchvision] [--out FILE]

Strict float32 and TF32 are works of their own, so that each is compared with peers of its own arithmetic; float32 by
three TF32 products has float32's accuracy and stands with the strict. Everyone has the same weights and the same
images, already on the device, and is verified against the array operations in float64 on the CPU before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np

import alexnet_np as anp
from alexnet_np.device import Array
from alexnet_np.kernels.gemm_cuda import matmul_precision
from alexnet_np.measure import gpu_peers
from alexnet_np.measure.gpu import LABELS, PEAKS, EventClock, Machine, copies, in_turn, to_numpy
from alexnet_np.measure.harness import Contender, Work, attempt, relative_error
from alexnet_np.models import AlexNet
from alexnet_np.study.summary import summary

LOGITS = {"strict": 1e-4, "tf32": 2e-2}  # largest error relative to the largest logit
TRUTHS = 4  # images that are computed in float64

# (name, arithmetic) of ours in each arithmetic's work
OURS = {
    "strict": (
        ("cupy", "strict"),
        ("cuda eager", "strict"),
        ("cuda eager, TF32x3", "tf32x3"),
        ("cuda plan", "strict"),
        ("cuda plan, TF32x3", "tf32x3"),
        ("cuda plan of int16 dense weights", "strict"),
    ),
    "tf32": (("cuda eager", "tf32"), ("cuda plan", "tf32")),
}


def works(machine: Machine, batch: int, preset: str = "torchvision", width: float = 1.0) -> Iterator[Work]:
    """Strict float32, then TF32. Each is made when its turn comes: its memory can go before the next."""
    model = anp.alexnet(preset, seed=0, width=width).eval()
    x = np.random.default_rng(0).standard_normal((batch, model.in_channels, 224, 224), dtype=np.float32)
    double = anp.alexnet(preset, dtype="float64", width=width, weights=model.state_dict()).eval()
    with anp.no_grad():
        truth = double(x[:TRUTHS].astype(np.float64))
    counted, xs = summary(model, x.shape), copies(machine, x)

    def check(limit: float) -> Callable[[Any], None]:
        def run(logits: Any) -> None:
            error = np.abs(to_numpy(logits)[:TRUTHS] - truth).max() / np.abs(truth).max()
            assert error < limit, f"a contender's logits are wrong: relative error {error:.1e}"

        return run

    moved = x.nbytes + 4.0 * counted.parameters
    eagerly = partial(eager, model)
    makers = {"cupy": eagerly, "cuda eager": eagerly, "cuda plan": partial(plan, model, batch)}
    makers["cuda plan of int16 dense weights"] = partial(plan, model, batch, dense="int16")
    for arithmetic, label in LABELS.items():
        machine.release()
        name = f"inference, {preset}, batch {batch}, {label}"
        peer = partial(gpu_peers.inference, model=model, xs=xs, arithmetic=arithmetic, device=machine.torch_device)
        yield Work(
            name,
            2.0 * counted.macs,
            moved,
            contenders(machine, arithmetic, makers, peer, xs),
            check(LOGITS[arithmetic]),
            EventClock(machine),
            error=lambda logits: relative_error(to_numpy(logits)[:TRUTHS], truth),
            images=batch,
        )


def contenders(
    machine: Machine,
    arithmetic: str,
    makers: Mapping[str, Callable[[str, str], Callable]],
    peer: Callable[[gpu_peers.Peer], Callable[[], Any]],
    *inputs: list[Array],
) -> list[Contender]:
    """Ours by `makers`, given a backend and an arithmetic, and theirs by `peer`; the reason for whoever is missing."""
    found = []
    for name, own in OURS[arithmetic]:
        kind = name.split(",")[0]
        if kind not in makers:  # a training step has its weights in float32 alone
            continue
        make = partial(makers[kind], machine.backends[kind.split()[0]], own)
        found.append(Contender(name, *attempt(lambda: (in_turn(make(), *inputs), "")), PEAKS[own]))  # noqa: B023
    for each in gpu_peers.PEERS:
        found.append(Contender(each.name, *attempt(lambda: (peer(each), "")), PEAKS[arithmetic]))  # noqa: B023
    return found


def eager(model: AlexNet, backend: str, arithmetic: str) -> Callable[[Array], Array]:
    own = on(model, backend).eval()

    def run(x: Array) -> Array:
        with matmul_precision(arithmetic), anp.no_grad():
            return own(x)

    return run


def plan(model: AlexNet, batch: int, backend: str, arithmetic: str, dense: str = "float32") -> Callable[[Array], Array]:
    return anp.compile(on(model, backend).eval(), max_batch=batch, precision=arithmetic, dense=dense)


def on(model: AlexNet, backend: str) -> AlexNet:
    """A copy of `model` on `backend`."""
    return deepcopy(model).to(backend)
