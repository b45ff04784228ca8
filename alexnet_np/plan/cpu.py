"""A network compiled for inference on the CPU: `plan = compile(model); logits = plan(x)`.

What it saves over calling the model: weights are packed, and transformed for Winograd, once; bias and ReLU are part of
the step before them; images stay channels-last in buffers that are planned once and written again and again, each in
the frame of zeros that its reader needs; and the layers up to the next pooling take only as many images at a time as
fit in the shared cache. Nothing is allocated in the loop but the logits that are handed out.

The weights are copies: after training further, call `refresh()`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from alexnet_np import layers, ops
from alexnet_np.device import Array, on_gpu
from alexnet_np.errors import ArgumentError, DtypeError
from alexnet_np.kernels import choices
from alexnet_np.kernels.cpu.simd import LANES, MACHINE
from alexnet_np.kernels.problems import of_convolution
from alexnet_np.models import AlexNet
from alexnet_np.plan import layers_of, megabytes
from alexnet_np.plan.cpu_steps import (
    Buffer,
    Convolution,
    Dense,
    Flatten,
    Load,
    MaxPool,
    Normalise,
    Rows,
    Step,
    share,
)


class Plan:
    """See alexnet_np/plan/__init__.py. Calls from several threads take turns, since they share the buffers."""

    def __init__(self, model: AlexNet, max_batch: int, exact: bool, size: tuple[int, int]) -> None:
        self.model, self.max_batch, self.exact = model, max_batch, exact
        self._lock = threading.Lock()
        self._program = Program(model, size, max_batch, exact)

    def __call__(self, x: Any) -> Array:
        """x (N,C,H,W) float32, N up to max_batch -> logits (N, num_classes). Raises ShapeError, DtypeError."""
        (x,) = ops.checks.float_arrays("plan", x=x)
        self.model.check_input(x)
        if x.dtype != np.float32 or on_gpu(x):
            raise DtypeError(f"plan: x must be a NumPy float32 array, got {x.dtype}; use x.astype('float32')")
        if len(x) > self.max_batch:
            raise ArgumentError(f"plan: {len(x)} images, but it was compiled with max_batch={self.max_batch}")
        with self._lock:
            if x.shape[2:] != self._program.size:
                self._program = Program(self.model, x.shape[2:], self.max_batch, self.exact)
            return self._program.run(x)

    def refresh(self) -> None:
        """Read the model's weights again, after they have changed."""
        with self._lock:
            for step in self._program.steps():
                step.refresh()

    def __repr__(self) -> str:
        return repr(self._program)


class Program:
    """The steps for one size of image. A chunk of the batch goes through the stages; then the whole through the dense.

    A stage's steps run one after another on a few images at a time, whose buffers stay in the cache.
    """

    def __init__(self, model: AlexNet, size: tuple[int, int], max_batch: int, exact: bool) -> None:
        self.size, self.max_batch, self.exact = (int(size[0]), int(size[1])), max_batch, exact
        self.stages: list[list[Step]] = [[]]
        self.dense: list[Step] = []
        self._build(model)
        between = [stage[-1].target for stage in self.stages[:-1]]
        inner = [[step.target for step in stage if step.target not in (*between, self.rows)] for stage in self.stages]
        room = choices.sizes("stages")
        self.chunk = self._most(between, room["chunk_bytes"], max_batch)
        self.passes = [self._most(stage, room["stage_bytes"], self.chunk) for stage in inner]
        for buffer in between:
            buffer.allocate(self.chunk)
        for stage, images in zip(inner, self.passes, strict=True):
            for buffer in stage:
                buffer.allocate(images, whole_chunk=False)
        share([buffer for stage in inner for buffer in stage])
        for rows in (self.rows, *(step.target for step in self.dense)):
            rows.allocate(max_batch)
        self._prepare()

    @staticmethod
    def _most(buffers: list[Buffer], room: int, limit: int) -> int:
        """How many images at a time keep the largest of `buffers` within `room` bytes."""
        return max(1, min(limit, room // max((buffer.image_bytes for buffer in buffers), default=1)))

    def _prepare(self) -> None:
        """Pack the dense weights, and meanwhile read every kernel from the disk: packing needs no Python.

        A kernel is read when it first runs. So an image of zeros goes through the stages; but through the dense steps,
        whose weights are not there yet, none.
        """
        with ThreadPoolExecutor(1) as other:
            packing = [other.submit(step.refresh) for step in self.dense]
            self._run_stages(np.zeros((1, *self.load.shape), np.float32))
            for step in self.dense:
                step.run(0, 0)
            for packed in packing:
                packed.result()

    def run(self, x: Array) -> Array:
        x = np.require(x, np.float32, ["C", "W"])  # kernels are compiled for writeable arrays
        for first, count in parts(len(x), self.chunk):
            self.flatten.chunk = first
            self._run_stages(x[first : first + count])
        for step in self.dense:
            step.run(0, len(x))
        logits = self.logits
        return logits.array[: len(x) * logits.stride].reshape(len(x), logits.stride)[:, : logits.features].copy()

    def _run_stages(self, x: Array) -> None:
        self.load.x = x.reshape(-1)
        for stage, images in zip(self.stages, self.passes, strict=True):
            for first, count in parts(len(x), images):
                for step in stage:
                    step.run(first, count)
        self.load.x = np.empty(0, np.float32)  # not the caller's array, for longer than the call

    def steps(self) -> list[Step]:
        return [step for stage in (*self.stages, self.dense) for step in stage]

    def _build(self, model: AlexNet) -> None:
        at: Any = None
        average: tuple[str, int, tuple[int, int]] | None = None
        for name, layer, relu, entering, shape in layers_of(model, self.size):
            if isinstance(layer, layers.Dropout):
                continue
            if isinstance(layer, layers.Conv2d):
                at = self._convolution(name, layer, relu, entering, shape, at)
            elif isinstance(layer, layers.MaxPool2d):
                at = self._add(MaxPool(name, self._pooling(layer, entering), at, self._buffer(name, shape)))
            elif isinstance(layer, layers.LocalResponseNorm):
                norm = ops.local_response_norm.find_geometry(**layer.arguments())
                at = self._add(Normalise(name, norm, at, self._buffer(name, shape)))
            elif isinstance(layer, layers.AdaptiveAvgPool2d):
                average = (name, entering[0], (shape[1], shape[2]))
            elif isinstance(layer, layers.Flatten) and average:
                self.flatten = Flatten(*average, source=at, target=Rows(name, shape[0]))
                self.rows = at = self._add(self.flatten)
            elif isinstance(layer, layers.Linear):
                self.dense.append(Dense(name, layer, relu, at, Rows(name, shape[0])))
                at = self.dense[-1].target
            else:
                raise ArgumentError(f"compile: no plan for {name} ({layer!r}) at this place; call the model itself")
        self.logits: Rows = at

    def _add(self, step: Step) -> Any:
        self.stages[-1].append(step)
        return step.target

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Buffer:
        return Buffer(name, max(shape[0], LANES), shape[1], shape[2])

    def _convolution(
        self, name: str, layer: layers.Conv2d, relu: bool, entering: tuple[int, ...], shape: tuple[int, ...], at: Any
    ) -> Buffer:
        stand_in = np.broadcast_to(np.float32(0), (1, *entering))
        g = ops.conv2d.find_geometry(stand_in, layer.weight.data, None, **layer.arguments())
        facts = {"batch": self.max_batch, "folds": at is None, "exact": self.exact, "planned": True, "machine": MACHINE}
        choice = choices.choose(of_convolution(stand_in, layer.weight.data, g, **facts))
        step = Convolution(name, layer, relu, g, choice)
        if at is None:
            S = g.stride[0] if step.fold else 1
            r = step.choice.r
            pixels = (g.output[0] + r - 1, g.output[1] + r - 1) if step.fold else self.size
            channels = entering[0] * S * S
            folded = max(channels, LANES) if step.choice.algorithm == "winograd" else channels
            corner = (g.padding[0], g.padding[2]) if step.fold else (0, 0)
            self.load = Load(entering, S, corner, Buffer("input", folded, pixels[0], pixels[1]))
            at = self._add(self.load)
        elif any(isinstance(step, MaxPool) for step in self.stages[-1]):
            self.stages.append([])
        target = self._buffer(name, shape)
        step.connect(at, target)
        return self._add(step)

    @staticmethod
    def _pooling(layer: layers.MaxPool2d, entering: tuple[int, ...]) -> Any:
        stand_in = np.broadcast_to(np.float32(0), (1, *entering))
        g = ops.max_pool2d.find_geometry(stand_in, **layer.arguments())
        if g.dilation != (1, 1):
            raise ArgumentError(f"compile: no plan for dilated pooling ({layer!r}); call the model itself")
        return g

    def __repr__(self) -> str:
        H, W = self.size
        lines = [f"Plan for up to {self.max_batch} images of {H}x{W}, float32{', exact' if self.exact else ''}"]
        lines.append(f"  {'step':<14}{'algorithm':<40}{'buffer':<26}{'at a time':>9}{'GFLOP/image':>13}{'weights':>10}")
        for stage, images in zip((*self.stages, self.dense), (*self.passes, self.max_batch), strict=True):
            for step in stage:
                buffer = f"{step.target.images}x{step.target.layout} {megabytes(step.target.array.nbytes)}"
                flops = f"{2e-9 * step.macs:.3f}" if step.macs else ""
                weights = megabytes(step.weights.nbytes) if step.weights.size else ""
                lines.append(f"  {step.name:<14}{step.algorithm:<40}{buffer:<26}{images:>9}{flops:>13}{weights:>10}")
        steps = self.steps()
        gigaflops = 2e-9 * sum(step.macs for step in steps)
        memory = {id(owner): owner.nbytes for owner in (owner_of(step.target.array) for step in steps)}
        buffers = megabytes(sum(memory.values()))
        weights = megabytes(sum(step.weights.nbytes for step in steps))
        lines.append(f"  {gigaflops:.3f} GFLOP an image, {buffers} of buffers, {weights} of packed weights")
        return "\n".join(lines)


def parts(count: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, length) of as few parts of `count` as have at most `most` each, all alike but for one."""
    pieces = -(-count // most)
    for i in range(pieces):
        first, end = i * count // pieces, (i + 1) * count // pieces
        yield first, end - first


def owner_of(array: Array) -> Array:
    """The array whose memory `array` shows."""
    return array if array.base is None else array.base
