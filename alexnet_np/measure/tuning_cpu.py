"""What `tune` times on the CPU: the layers of a network in plans, by themselves and in training, and the other kernels.

A layer is timed alone, on at most IMAGES images and OUTPUTS outputs: more of them are more of the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from alexnet_np import layers, ops, plan, threads
from alexnet_np.device import Array
from alexnet_np.kernels import (
    avg_pool2d_numba,
    choices,
    conv2d_im2col_numba,
    conv2d_numba,
    dropout_numba,
    linear_numba,
    linear_training_numba,
    local_response_norm_nchw_numba,
    local_response_norm_numba,
    max_pool2d_numba,
    relu_numba,
    sgd_numba,
)
from alexnet_np.kernels.cpu.simd import MACHINE
from alexnet_np.kernels.gemm_numba import WIDTH, padded_width
from alexnet_np.kernels.problems import MANY, Problem, of_convolution
from alexnet_np.measure.tuning_subjects import BATCHES, Subject
from alexnet_np.models import AlexNet
from alexnet_np.ops.sgd import Step
from alexnet_np.plan.layout import Place, walk
from alexnet_np.training.sgd import SGD

IMAGES, OUTPUTS = 32, 1024
CONVOLVED = {1: (1, 1), 8: (2, 16), IMAGES: (17, MANY)}  # as BATCHES: of more images no more are in work at a time
SOME = 1 << 22  # floats of what is walked from end to end
SHAPE = ("C", "F", "groups", "kernel", "stride", "OH", "OW", "direction", "dtype", "exact", "training")

Make = Callable[[], Subject]


def subjects(model: AlexNet, size: tuple[int, int]) -> Iterator[Make]:
    """What makes each, the most useful ones first."""
    places = walk(model, size)
    convolutions = [place for place in places if isinstance(place.layer, layers.Conv2d)]
    dense = [place for place in places if isinstance(place.layer, layers.Linear)]
    first, most = convolutions[0], max(CONVOLVED)  # few images at a time are seldom trained
    for batch in sorted(BATCHES, key=lambda batch: batch % 32):  # 32 and 128, then 1 and 8
        if batch in CONVOLVED:
            yield from (partial(convolution, place, batch) for place in convolutions)
        yield from (partial(packed, place, batch) for place in dense)
    yield partial(stages, model, size)
    yield from (partial(trained, place, most, place is not first) for place in convolutions)
    for batch in (batch for batch in BATCHES if batch >= most):
        for direction in ("forward", "backward"):
            yield from (partial(trained_dense, place, batch, direction) for place in dense)
    yield from (partial(gradients, place, most, place is not first) for place in convolutions)
    yield partial(trained_stages, model, size)
    for batch in BATCHES:
        for direction in ("forward", "backward"):
            yield from (partial(linear, place, batch, direction) for place in dense)
    yield from (partial(make, convolutions[-1]) for make in (columns, max_pooling, *average_pooling(), *normalising()))
    yield from (normalising_rows, rectifying, dropping, stepping)


def speaking_for(batch: int, op: str) -> tuple[int, int]:
    return CONVOLVED[batch] if op == "conv2d" else BATCHES[batch]


def batches(batch: int, op: str = "conv2d") -> str:
    least, most = speaking_for(batch, op)
    return f"batch {least}" if least == most else f"batches from {least} on" if most > 1 << 20 else f"{least} to {most}"


def images(count: int, shape: tuple[int, ...]) -> Array:
    """(N,C,H,W), lying channels-last."""
    C, H, W = shape
    return np.random.default_rng(0).standard_normal((count, H, W, C), dtype=np.float32).transpose(0, 3, 1, 2)


def rows(count: int, width: int) -> Array:
    return np.random.default_rng(0).standard_normal((count, width), dtype=np.float32)


def shape_of(problem: Problem, batch: int, *names: str) -> dict[str, Any]:
    """What a row asks of problems of this shape and batches like this one."""
    known = choices.conditions(problem)
    return {name: known[name] for name in names} | {"batch": speaking_for(batch, problem.op)}


# Convolutions


def convolving(place: Place, batch: int, **facts: Any) -> tuple[Problem, Any]:
    """What choices.py is asked, and the geometry."""
    layer: Any = place.layer
    weight, x = layer.weight.data, layers.stand_in((batch, *place.entering))
    geometry = ops.conv2d.find_geometry(x, weight, None, **layer.arguments())
    return of_convolution(x, weight, geometry, machine=MACHINE, **facts), geometry


def convolution(place: Place, batch: int) -> Subject:
    """In a plan, with its bias and ReLU."""
    problem, _ = convolving(place, batch, planned=True)
    alone = AlexNet("one layer", [place.layer, layers.ReLU()], layers.Identity(), [], 0)
    x, H, W = images(min(batch, IMAGES), place.entering), *place.entering[1:]

    def build() -> Callable[[], Any]:
        made = plan.compile(alone, batch, outputs=["features"], size=(H, W))
        given = np.ascontiguousarray(x)
        return lambda: made(given)

    where = shape_of(problem, batch, *SHAPE)
    return Subject(f"{place.name}, {batches(batch)}", problem, where, build, sizes={"winograd": ("block_tiles",)})


def backward(place: Place, batch: int, dx: bool) -> tuple[Array, Array, Callable[[], Any]]:
    """x, the layer's weight, and its gradients."""
    layer: Any = place.layer
    count, weight = min(batch, IMAGES), layer.weight.data
    x, dy = images(count, place.entering), images(count, place.leaving)
    x = x if dx else np.ascontiguousarray(x)  # pictures are not channels-last
    _, geometry = convolving(place, batch)
    return x, weight, partial(conv2d_numba.gradients, dy, x, weight, geometry, (dx, True, True))


def gradients(place: Place, batch: int, dx: bool) -> Subject:
    problem, _ = convolving(place, batch, direction="backward")
    _, _, run = backward(place, batch, dx)
    name, where = f"{place.name} backward, {batches(batch)}", shape_of(problem, batch, *SHAPE)
    return Subject(name, problem, where, lambda: run, sizes={"winograd": ("gradient_tiles",)})


def trained(place: Place, batch: int, dx: bool) -> Subject:
    """Forward and backward in a training plan, which have one F(m,r) between them."""
    problem, geometry = convolving(place, batch, planned=True, training=True)
    x, weight, back = backward(place, batch, dx)

    def run() -> None:
        conv2d_numba.compute(x, weight, None, geometry, True)
        back()

    name, where = f"{place.name} in training, {batches(batch)}", shape_of(problem, batch, *SHAPE)
    del where["direction"]
    return Subject(name, problem, where, lambda: run, ("winograd",), {"winograd": ("block_tiles", "gradient_tiles")})


def columns(place: Place) -> Subject:
    """Of im2col, for what Winograd does not compute."""
    _, geometry = convolving(place, 1)
    x, weight, layer = np.ascontiguousarray(images(4, place.entering)), place.layer.weight.data, place.layer  # type: ignore[attr-defined]
    dy, needs = conv2d_im2col_numba.compute(x, weight, None, geometry), (True, True, True)

    def run() -> None:
        conv2d_im2col_numba.compute(x, weight, None, geometry)
        conv2d_im2col_numba.gradients(dy, x, weight, geometry, needs)

    return Subject(f"im2col of {layer!r}", Problem("conv2d"), {}, lambda: run, (), {"": ("column_bytes",)})


# Some layers at a time


def stages(model: AlexNet, size: tuple[int, int]) -> Subject:
    x = np.ascontiguousarray(images(IMAGES, (model.in_channels, *size)))

    def build() -> Callable[[], Any]:
        made = plan.compile(model, IMAGES, outputs=["features"], size=size)
        return lambda: made(x)

    sizes = {"": ("stage_bytes", "chunk_bytes")}
    return Subject(
        "all convolutions of a plan",
        Problem("stages", planned=True),
        {"planned": True, "training": False},
        build,
        (),
        sizes,
    )


def trained_stages(model: AlexNet, size: tuple[int, int]) -> Subject:
    x, target = np.ascontiguousarray(images(IMAGES, (model.in_channels, *size))), np.zeros(IMAGES, np.int64)
    channels, H, W = model.features.output_shape((1, model.in_channels, *size))[1:]
    head = layers.Linear(channels * H * W, WIDTH, seed=0)
    short = AlexNet("without its dense layers", list(model.features), layers.Identity(), [head], 0).train()
    optimizer = SGD(short.named_parameters(), lr=0.0)

    def build() -> Callable[[], Any]:
        made = plan.compile_training(short, optimizer, IMAGES, size)
        return lambda: made(x, target)

    problem, sizes = Problem("stages", training=True), {"": ("stage_bytes",)}
    return Subject("all convolutions of a training plan", problem, {"training": True}, build, (), sizes)


# Dense layers

DENSE = ("C", "F", "direction", "dtype", "planned", "training")


def dense_of(place: Place, batch: int, **facts: Any) -> tuple[Problem, dict[str, Any], Array]:
    """What choices.py is asked, what a row asks, and some rows of the weight."""
    weight = place.layer.weight.data  # type: ignore[attr-defined]
    problem = Problem("linear", batch=batch, C=weight.shape[1], F=len(weight), machine=MACHINE, **facts)
    return problem, shape_of(problem, batch, *DENSE), weight[:OUTPUTS]


def packed(place: Place, batch: int) -> Subject:
    """In a plan."""
    problem, where, weight = dense_of(place, batch, planned=True)
    (N, K), flat = weight.shape, np.require(weight, np.float32, ["C", "W"]).reshape(-1)
    bias = np.zeros(-(-N // WIDTH) * WIDTH, np.float32)
    panels = np.empty(bias.size * K, np.float32)
    with threads.parallel():
        linear_numba.pack_weight[-(-N // WIDTH)](flat, N, K, panels)
    shape = linear_numba.Shape(batch, N, K, padded_width(K), padded_width(N))
    x, y = (rows(batch, width).reshape(-1) for width in (shape.ldx, shape.ldy))
    run = partial(linear_numba.forward, x, panels, bias, True, y, shape)
    name = f"{place.name}, {batches(batch, 'linear')}"
    return Subject(name, problem, where, lambda: run, sizes={"packed": ("block_k",)})


def linear(place: Place, batch: int, direction: str) -> Subject:
    """By itself, on a weight as it is."""
    problem, where, weight = dense_of(place, batch, direction=direction)
    x, dy, needs = rows(batch, weight.shape[1]), rows(batch, len(weight)), (True, True, True)
    if direction == "forward":
        run: Callable[[], Any] = partial(linear_numba.compute, x, weight, None)
        sizes: tuple[str, ...] = ("block_k",)
    else:
        run, sizes = partial(linear_numba.gradients, dy, x, weight, needs), ("block_k", "block_panels")
    name = f"{place.name} {direction}, on weights as they are, {batches(batch, 'linear')}"
    return Subject(name, problem, where, lambda: run, sizes={"panels": sizes})


def trained_dense(place: Place, batch: int, direction: str) -> Subject:
    """In a training plan; the update leaves the weight as it is, but takes its time."""
    problem, where, weight = dense_of(place, batch, direction=direction, training=True)
    (N, K), flat = weight.shape, weight.copy().reshape(-1)
    bias = np.zeros(-(-N // WIDTH) * WIDTH, np.float32)
    shape = linear_numba.Shape(batch, N, K, padded_width(K), padded_width(N))
    x, dx = (rows(batch, shape.ldx).reshape(-1) for _ in range(2))
    y = rows(batch, shape.ldy).reshape(-1)
    update = linear_training_numba.Update(np.zeros_like(flat), Step(lr=0.0, momentum=0.9))
    if direction == "forward":
        run: Callable[[], Any] = partial(linear_training_numba.forward, x, flat, bias, True, y, shape)
    else:
        fits = linear_training_numba.fits(weight)
        run = partial(linear_training_numba.backward, y, x, flat, dx, update, shape) if fits else lambda: None
    sizes = {"": ("block_k", "block_panels")[: 1 if direction == "forward" else 2]}
    name = f"{place.name} {direction} in training, {batches(batch, 'linear')}"
    return Subject(name, problem, where, lambda: run, (), sizes)


# The rest, on channels like those of the last convolution


def there_and_back(op: Any, geometry: Any, place: Place) -> Callable[[], Any]:
    x = images(IMAGES, place.leaving)

    def run() -> None:
        found = op.compute(x, geometry)
        if isinstance(found, tuple):
            y, kept = found
            op.gradients(y, kept, x.shape, geometry)
        else:
            op.gradients(found, x.shape, geometry)

    return run


def pooled(place: Place, op: str, **facts: Any) -> Problem:
    C = place.leaving[0]
    shape = {"batch": IMAGES, "C": C, "F": C, "layout": "channels last", "window": 9, "machine": MACHINE}
    return Problem(op, **{**shape, **facts})


def max_pooling(place: Place) -> Subject:
    geometry = ops.max_pool2d.find_geometry(layers.stand_in((IMAGES, *place.leaving)), 3, 2)
    run = there_and_back(max_pool2d_numba, geometry, place)
    where = {"layout": "channels last"}
    return Subject("max pooling, both ways", pooled(place, "max_pool2d"), where, lambda: run)


def average_pooling() -> list[Callable[[Place], Subject]]:
    def make(place: Place, direction: str) -> Subject:
        x = images(IMAGES, place.leaving)
        geometry = ops.avg_pool2d.find_geometry(x, 3, 2)
        dy = avg_pool2d_numba.compute(x, geometry)
        forward = partial(avg_pool2d_numba.compute, x, geometry)
        run = forward if direction == "forward" else partial(avg_pool2d_numba.gradients, dy, x.shape, geometry)
        problem, where = pooled(place, "avg_pool2d", direction=direction), {"layout": "channels last"}
        return Subject(f"average pooling {direction}", problem, where | {"direction": direction}, lambda: run)

    return [partial(make, direction=direction) for direction in ("forward", "backward")]


def normalising() -> list[Callable[[Place], Subject]]:
    def make(place: Place, direction: str) -> Subject:
        x = images(IMAGES, place.leaving).reshape(IMAGES, place.leaving[0], -1)
        geometry = ops.local_response_norm.find_geometry(5, 1e-4, 0.75, 2.0, "torch")
        forward = partial(local_response_norm_numba.compute, x, geometry)
        run = forward if direction == "forward" else partial(local_response_norm_numba.gradients, x, x, geometry)
        problem = pooled(place, "local_response_norm", direction=direction, window=5)
        where = {"layout": "channels last", "direction": direction}
        return Subject(f"normalisation {direction}", problem, where, lambda: run)

    return [partial(make, direction=direction) for direction in ("forward", "backward")]


def normalising_rows() -> Subject:
    """On images in C order."""
    x = np.ascontiguousarray(rows(8 * 64, 3025).reshape(8, 64, 3025))
    geometry = ops.local_response_norm.find_geometry(5, 1e-4, 0.75, 2.0, "torch")
    run = partial(local_response_norm_nchw_numba.compute, x, geometry)
    problem = Problem("local_response_norm")
    return Subject("normalisation by planes", problem, {}, lambda: run, (), {"": ("positions",)})


def rectifying() -> Subject:
    x = rows(1, SOME)

    def run() -> None:
        relu_numba.gradients(x, relu_numba.compute(x))

    return Subject("ReLU, both ways", Problem("relu"), {}, lambda: run, (), {"": ("chunk",)})


def dropping() -> Subject:
    x = rows(1, SOME)

    def run() -> None:
        dropout_numba.compute(x, dropout_numba.draw_mask(x, 0.5, 1), 0.5)

    return Subject("dropout", Problem("dropout"), {}, lambda: run, (), {"": ("chunk",)})


def stepping() -> Subject:
    weight, gradient, velocity = (rows(1, SOME) for _ in range(3))
    run = partial(sgd_numba.compute, weight, gradient, velocity, Step(lr=0.0, momentum=0.9))
    return Subject("SGD", Problem("sgd"), {}, lambda: run, (), {"": ("chunk",)})
