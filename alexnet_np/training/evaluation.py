"""How good a network is: top-1, top-5, loss and confusion matrix, from one crop or the mean of ten."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import ops
from alexnet_np.device import Array, array_module, beside, to_cpu
from alexnet_np.errors import ArgumentError
from alexnet_np.layers import no_grad
from alexnet_np.models import AlexNet
from alexnet_np.plan import compile as compile_plan

Forward = Callable[[Array], Array]


class Evaluation(NamedTuple):
    images: int
    loss: float  # mean cross-entropy
    top1: float  # share of images, 0..1
    top5: float
    confusion: np.ndarray  # (classes, classes) int64: images of class [row] taken for class [column]

    def to_json(self) -> dict[str, Any]:
        return {"images": self.images, "loss": self.loss, "top1": self.top1, "top5": self.top5}


def evaluate(
    model: AlexNet,
    batches: Iterable[tuple[Array, Array]],
    num_classes: int,
    shared: Callable[[Array, int], Array] | None = None,
    planned: int = 0,
) -> Evaluation:
    """Run `model` in evaluation mode over batches of x (N,C,H,W), or (N,crops,C,H,W), and targets (N,).

    `shared`: gives a batch's logits, of so many images, where x is the rows of it that this process has.
    `planned`: by an inference plan for batches of at most so many images, compiled of the weights as they are now; 0:
    layer by layer, as hooks and float64 need it.
    See `from_logits`. The model's mode is put back. Raises ArgumentError without images.
    """
    was_training, parameters = model.training, next(model.parameters()).data
    model.eval()
    forward: Forward = by_plan(model, planned) if planned else model

    def logits(x: Array, images: int) -> Array:
        return logits_of(forward, x) if shared is None else beside(shared(x, images), parameters)

    try:
        with no_grad():
            found = ((logits(beside(x, parameters), len(target)), target) for x, target in batches)
            return from_logits(found, num_classes)
    finally:
        model.train(was_training)


def by_plan(model: AlexNet, most: int) -> Forward:
    """The model compiled, for images of the size of the first, at most so many in a batch."""
    compiled: list[Forward] = []

    def forward(x: Array) -> Array:
        if not compiled:
            compiled.append(compile_plan(model, most, size=(x.shape[2], x.shape[3])))
        return compiled[0](x)

    return forward


def logits_of(forward: Forward, x: Array) -> Array:
    """(N,classes) of x (N,C,H,W), (N,crops,classes) of x (N,crops,C,H,W).

    N as `forward` has it: a process that holds some units of the dense layers gives everybody's images.
    """
    crops = x.shape[1:-3]
    logits = forward(x.reshape(len(x) * math.prod(crops), *x.shape[-3:]))
    return logits.reshape(len(logits) // math.prod(crops), *crops, logits.shape[-1])


class Judged(NamedTuple):
    """What became of some images, (n,) each: enough of their logits to evaluate them, wherever they were computed."""

    target: np.ndarray  # int64
    predicted: np.ndarray  # int64
    score: np.ndarray  # the logarithm of the target's probability
    in_top5: np.ndarray  # bool


def from_logits(found: Iterable[tuple[Array, Array]], num_classes: int) -> Evaluation:
    """What logits (N,classes), or (N,crops,classes), and targets (N,) amount to; see `judge` and `evaluation_of`."""
    return evaluation_of((judge(logits, target) for logits, target in found), num_classes)


def judge(logits: Array, target: Array) -> Judged:
    """The prediction for several crops is the mean of their softmax outputs (Krizhevsky et al. 2012, sec. 4.1).

    Among equal scores the lower class index goes first.
    """
    scores = to_cpu(log_probabilities(logits))
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return Judged(target, best[:, 0], scores[np.arange(len(target)), target], (best == target[:, None]).any(1))


def evaluation_of(found: Iterable[Judged], num_classes: int) -> Evaluation:
    """The same to the last digit however the images are cut: counts, and a sum that is rounded once.

    Raises ArgumentError without images.
    """
    confusion = np.zeros((num_classes, num_classes), np.int64)
    losses: list[float] = []
    in_top5 = 0
    for some in found:
        losses += some.score.tolist()
        in_top5 += int(some.in_top5.sum())
        np.add.at(confusion, (some.target, some.predicted), 1)
    images = len(losses)
    if not images:
        raise ArgumentError("evaluate: no images")
    return Evaluation(images, -math.fsum(losses) / images, int(confusion.trace()) / images, in_top5 / images, confusion)


def log_probabilities(logits: Array) -> Array:
    """(N,classes): log softmax of the logits, or the logarithm of the mean softmax over the crops."""
    q = ops.log_softmax.forward(logits, dim=-1)[0]
    if q.ndim == 2:
        return q
    xp = array_module(q)
    largest = q.max(1, keepdims=True)  # taken out of the sum, so that exp cannot underflow to log(0)
    return xp.log(xp.exp(q - largest).mean(1)) + largest[:, 0]
