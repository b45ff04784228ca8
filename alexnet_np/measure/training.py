"""One training step: forward with dropout, cross-entropy, backward, SGD with momentum and weight decay.

    alexnet bench train [--batch 128] [--preset torchvision] [--out FILE]

Ours on each CPU backend and as a plan, beside PyTorch contiguous and channels_last, its SGD with fused=True (the
fastest it has). The gradients are not verified here but in the tests; the loss is, which dropout alone may move.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import alexnet_np as anp
from alexnet_np import ops
from alexnet_np.backend import BACKENDS, available_backends, use_backend
from alexnet_np.device import Array
from alexnet_np.measure.harness import Contender, Run, Work, attempt
from alexnet_np.measure.peers import torch_net
from alexnet_np.models import AlexNet
from alexnet_np.study.summary import summary
from alexnet_np.study.torch_net import import_torch
from alexnet_np.training.sgd import SGD

OPTIONS: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def works(batch: int, preset: str = "torchvision") -> list[Work]:
    model = anp.alexnet(preset, seed=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, model.in_channels, 224, 224), dtype=np.float32)
    target = rng.integers(0, model.num_classes, batch)
    contenders = [
        Contender(name, *((None, str(usable)) if usable is not True else (our_step(preset, name, x, target), "")))
        for name, usable in available_backends().items()
        if BACKENDS[name] == "cpu"
    ]
    contenders.append(Contender("numba plan", *attempt(partial(our_plan, preset, x, target))))
    for layout in ("contiguous", "channels_last"):
        contenders.append(Contender(f"torch {layout}", *attempt(partial(torch_step, model, layout, x, target))))
    return [Work(f"training step, {preset}, batch {batch}", *cost(model, x), contenders, plausible, images=batch)]


def cost(model: AlexNet, x: np.ndarray) -> tuple[float, float]:
    """FLOPs and bytes of one step."""
    counted = summary(model, x.shape)
    first = counted.layers[0].macs  # the first layer's dx is not needed
    moved = 3.0 * x.nbytes + 4 * 4.0 * counted.parameters  # weight read, gradient written and read, velocity and weight
    return 2.0 * (3 * counted.macs - first), moved


def plausible(loss: Any) -> None:
    assert 0 < float(loss) < 20, f"the loss is {float(loss)}"


def our_step(preset: str, backend: str, x: np.ndarray, target: np.ndarray) -> Any:
    step = eager_step(anp.alexnet(preset, seed=0, backend=backend))
    return lambda: step(x, target)


def our_plan(preset: str, x: np.ndarray, target: np.ndarray) -> Run:
    model = anp.alexnet(preset, seed=0).train()
    step = anp.compile_training(model, SGD(model.named_parameters(), **OPTIONS), len(x), x.shape[2:])
    return lambda: step(x, target), ""


def eager_step(model: AlexNet) -> Callable[[Array, Array], Array]:
    """A whole training step of `model`, all of it on the model's backend."""
    backend = model.train().backend
    optimizer = SGD(model.named_parameters(), **OPTIONS, backend=backend)

    def step(x: Array, target: Array) -> Array:
        optimizer.zero_grad()
        logits = model(x)
        with use_backend(backend):
            loss, cache = ops.cross_entropy.forward(logits, target)
            dlogits = ops.cross_entropy.backward(1.0, cache)
        model.backward(dlogits, input_grad=False)
        optimizer.step()
        return loss

    return step


def torch_step(model: AlexNet, layout: str, x: np.ndarray, target: np.ndarray) -> Run:
    torch = import_torch()
    memory = getattr(torch, "contiguous_format" if layout == "contiguous" else layout)
    peer = torch_net(model).train().to(memory_format=memory)
    inputs = torch.from_numpy(x).to(memory_format=memory)
    labels = torch.from_numpy(target)
    optimizer = torch.optim.SGD(peer.parameters(), **OPTIONS, fused=True)

    def step() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(peer(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, ""
