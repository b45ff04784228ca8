"""One training step on a GPU: forward with dropout, cross-entropy, backward, SGD with momentum and weight decay.

    alexnet bench train --device gpu [--batch 128] [--preset torchvision] [--out FILE]

Ours eager and as a plan, beside PyTorch in every way it is made fast, its SGD with fused=True; strict float32 and TF32
apart, as in gpu_model.py. The gradients are verified in the tests; here the loss is, which dropout alone may move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

import alexnet_np as anp
from alexnet_np.device import Array
from alexnet_np.kernels.gemm_cuda import matmul_precision
from alexnet_np.measure import gpu_peers
from alexnet_np.measure.gpu import LABELS, EventClock, Machine, copies, to_numpy
from alexnet_np.measure.gpu_model import contenders, on
from alexnet_np.measure.harness import Work
from alexnet_np.measure.training import OPTIONS, cost, eager_step, plausible
from alexnet_np.models import AlexNet

Step = Callable[[Array, Array], Array]


def works(machine: Machine, batch: int, preset: str = "torchvision", width: float = 1.0) -> Iterator[Work]:
    """Strict float32, then TF32. Each is made when its turn comes: its memory can go before the next."""
    model = anp.alexnet(preset, seed=0, width=width)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, model.in_channels, 224, 224), dtype=np.float32)
    xs, target = copies(machine, x), machine.place(rng.integers(0, model.num_classes, batch))
    eagerly = partial(eager, model)
    makers = {"cupy": eagerly, "cuda eager": eagerly, "cuda plan": partial(plan, model, batch)}
    for arithmetic, label in LABELS.items():
        machine.release()
        name = f"training step, {preset}, batch {batch}, {label}"
        given = {"model": model, "xs": xs, "target": target, "options": OPTIONS}
        peer = partial(gpu_peers.training, **given, arithmetic=arithmetic, device=machine.torch_device)
        yield Work(
            name,
            *cost(model, x),
            contenders(machine, arithmetic, makers, peer, xs, [target] * len(xs)),
            lambda loss: plausible(to_numpy(loss)),
            EventClock(machine),
            images=batch,
        )


def eager(model: AlexNet, backend: str, arithmetic: str) -> Step:
    step = eager_step(on(model, backend))

    def run(x: Array, target: Array) -> Array:
        with matmul_precision(arithmetic):
            return step(x, target)

    return run


def plan(model: AlexNet, batch: int, backend: str, arithmetic: str) -> Step:
    own = on(model, backend).train()
    optimizer = anp.SGD(own.named_parameters(), **OPTIONS)
    return anp.compile_training(own, optimizer, batch_size=batch, precision=arithmetic)
