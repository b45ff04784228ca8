"""A network compiled for inference on the CPU: `plan = compile(model); logits = plan(x)`.

What it saves over calling the model: weights are packed, and transformed for Winograd, once; bias and ReLU are part of
the step before them; images stay channels-last in buffers that are planned once and written again and again, each in
the frame of zeros that its reader needs; and the layers up to the next pooling take only as many images at a time as
fit in the shared cache. Nothing is allocated in the loop but the results that are handed out.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from alexnet_np import threads
from alexnet_np.device import Array, on_gpu
from alexnet_np.errors import BackendError
from alexnet_np.kernels import choices
from alexnet_np.kernels.cpu.team import rouse
from alexnet_np.plan import images, layout, steps
from alexnet_np.plan.base import InferencePlan, Request, Results, Shape
from alexnet_np.plan.cpu_buffers import Buffer, InputBuffer, Rows, owner_of, share
from alexnet_np.plan.cpu_recording import MOST, Call, Recording, key, record
from alexnet_np.plan.cpu_steps import STEPS, AvgPool, Convolution, Dense, Flatten, MaxPool
from alexnet_np.plan.cpu_weights import PackedWeights
from alexnet_np.plan.table import gigaflops, megabytes, table


class Plan(InferencePlan):
    """One program at a time: another size of image is planned anew when it first comes."""

    def __init__(self, request: Request, of: Plan | None = None) -> None:
        super().__init__(request)
        self._weights: PackedWeights = (
            PackedWeights(self.model, request.dense, request.forget) if of is None else of._weights
        )
        packed = None if of is None else of._program
        self._program: Program = Program(request, request.size, self._weights, packed)

    def twin(self) -> Plan:
        """Another plan on the same packed weights, with buffers of its own: for another thread, at the same time."""
        return Plan(self.request, self)

    def _placed(self, x: Array) -> Array:
        rouse(threads.get_num_threads())
        if not self._owns(x):
            raise BackendError(f"plan: x is {self._name_of(x)}, not where the plan is; move it with x.get()")
        return np.require(x, None, ["C", "W"])  # kernels are compiled for writeable arrays

    def _run(self, x: Array, shape: Shape, results: Results) -> None:
        size = (shape[2], shape[3])
        if size != self._program.size:
            self._check_layers()
            self._program = Program(self.request, size, self._weights)
        self._program.run(x, results)

    def _refresh(self) -> None:
        self._program.recordings.clear()
        self._weights.copy_filters(self._program.of(Convolution))
        for step in self._program.of(Convolution, Dense):
            step.pack(self._weights)

    def _empty(self, shape: Shape) -> Array:
        """Images channels-last, as they lie in the buffers."""
        if len(shape) < 4:
            return np.empty(shape, np.float32)
        return np.empty((shape[0], *shape[2:], shape[1]), np.float32).transpose(0, 3, 1, 2)

    def _owns(self, array: Any) -> bool:
        return isinstance(array, np.ndarray)

    def _name_of(self, array: Any) -> str:
        return "on a GPU" if on_gpu(array) else f"a {type(array).__name__}"

    def __repr__(self) -> str:
        return repr(self._program)


class Program:
    """The steps for one size of image. A chunk of the batch goes through the stages; then the whole through the dense.

    A stage's steps run one after another on a few images at a time, whose buffers stay in the cache.
    """

    def __init__(
        self, request: Request, size: tuple[int, int], weights: PackedWeights, packed: Program | None = None
    ) -> None:
        """`packed`: a program whose packed weights to use, where it is for the same size."""
        self.request, self.size = request, size
        places = layout.walk(request.model, size, request.outputs)
        self.steps = steps.make(places, steps.Options(request.max_batch, request.exact), STEPS)
        self.load = self.steps[0]
        at: Any = InputBuffer("input", *places[0].entering)
        for step in self.steps:
            at = step.forward(at, weights)
        self.load.say()
        self.stages, self.rows = cut(self.steps)
        self.flattens = self.of(Flatten)
        inside = any(step.place.wanted and isinstance(step.target, Buffer) for step in self.steps)
        self.records = not inside and all(step.by_kernels for step in self.steps)
        self.recordings: dict[Any, Recording] = {}
        self._allocate()
        if packed is None or packed.size != size:
            self._prepare(weights)
        else:
            for step, other in zip(self.of(Convolution, Dense), packed.of(Convolution, Dense), strict=True):
                step.take(other)

    def _allocate(self) -> None:
        between = [stage[-1].target for stage in self.stages[:-1]]
        held = [[step.target for step in stage if isinstance(step.target, Buffer)] for stage in self.stages]
        inner = [[buffer for buffer in stage if buffer not in between] for stage in held]
        room = {name: size // self.request.at_once for name, size in choices.sizes("stages", planned=True).items()}
        self.chunk = self._most(between, room["chunk_bytes"], self.request.max_batch)
        self.passes = [self._most(stage, room["stage_bytes"], self.chunk) for stage in inner]
        for buffer in between:
            buffer.allocate(self.chunk)
        for stage, count in zip(inner, self.passes, strict=True):
            for buffer in stage:
                buffer.allocate(count, whole_chunk=False)
        share([buffer for stage in inner for buffer in stage])
        for step in (*self.flattens, *self.rows):
            step.target.allocate(self.request.max_batch)

    @staticmethod
    def _most(buffers: list[Buffer], room: int, limit: int) -> int:
        """How many images at a time keep the largest of `buffers` within `room` bytes."""
        return max(1, min(limit, room // max((buffer.image_bytes for buffer in buffers), default=1)))

    def _prepare(self, weights: PackedWeights) -> None:
        """Pack the weights; the dense ones only once, and meanwhile read every kernel from the disk.

        A kernel is read when it first runs. So an image of zeros goes through the stages; but through the dense steps,
        whose weights are not there yet, none.
        """
        first = not weights.filters
        if first:
            weights.copy_filters(self.of(Convolution))
            weights.forget([step.name for step in self.of(Dense)])
        for step in self.of(Convolution):
            step.pack(weights)
        with ThreadPoolExecutor(1) as other:
            packing = [other.submit(self._pack, step, weights) for step in self.of(Dense) if first]
            for call in self._calls(np.zeros((1, *self.load.place.entering), np.float32)):
                call.step.run(call.first, 0 if call.step in self.rows else call.images)
            for done in packing:
                done.result()

    def _pack(self, step: Dense, weights: PackedWeights) -> None:
        step.pack(weights)
        dense = self.of(Dense)
        weights.forget([each.name for each in dense[dense.index(step) + 1 :]])

    def run(self, x: Array, results: Results) -> None:
        """The outputs of x, float32 (N,C,H,W) or uint8 (N,H,W,C), into `results`."""
        if x.dtype == np.uint8:
            self.load.table = images.table_of(self.request.model).reshape(-1)
            self.load.order = np.array(images.recipe(self.request.model).order)
        if not (self.records and self._recording(x).run(x)):
            self._run_by_step(x, results)
        self.load.x = np.empty(0, np.float32)  # not the caller's array, for longer than the call
        for step in (*self.flattens, *self.rows):
            for name in step.place.wanted:
                results[name][...] = step.target.view(0, len(x))

    def _recording(self, x: Array) -> Recording:
        which = key(x)
        if which not in self.recordings:
            while len(self.recordings) >= MOST:
                del self.recordings[next(iter(self.recordings))]
            self.recordings[which] = record(lambda: self._calls(x), self.load)
        return self.recordings[which]

    def _run_by_step(self, x: Array, results: Results) -> None:
        for step, chunk, first, count in self._calls(x):
            step.run(first, count)
            if isinstance(step.target, Buffer):
                for name in step.place.wanted:
                    results[name][chunk + first :][:count] = step.target.view(first, count)

    def _calls(self, x: Array) -> Iterator[Call]:
        """Which step computes which images of x, in order. A step is told what its call is of before it is yielded."""
        for chunk, size in parts(len(x), self.chunk):
            for step in self.flattens:
                step.chunk = chunk
            self.load.x, self.load.images = x[chunk : chunk + size].reshape(-1), size
            for stage, most in zip(self.stages, self.passes, strict=True):
                for first, count in parts(size, most):
                    yield from (Call(step, chunk, first, count) for step in stage)
        yield from (Call(step, 0, 0, len(x)) for step in self.rows)

    def of(self, *kinds: type) -> list[Any]:
        """The steps of these kinds."""
        return [step for step in self.steps if isinstance(step, kinds)]

    def __repr__(self) -> str:
        H, W = self.size
        exact = ", exact" if self.request.exact else ""
        dense = "" if self.request.dense == "float32" else f", dense {self.request.dense}"
        outputs = "" if self.request.outputs is None else f", outputs {', '.join(self.request.outputs)}"
        rows = []
        for stage, count in zip((*self.stages, self.rows), (*self.passes, self.request.max_batch), strict=True):
            for step in stage:
                buffer = f"{step.target.images}x{step.target.layout} {megabytes(step.target.array.nbytes)}"
                packed = megabytes(step.packed_bytes) if step.packed_bytes else ""
                rows.append((step.name, step.algorithm, buffer, str(count), gigaflops(step.macs), packed))
        memory = {id(owner): owner.nbytes for owner in (owner_of(step.target.array) for step in self.steps)}
        packed = megabytes(sum(step.packed_bytes for step in self.steps))
        total = f"{gigaflops(sum(step.macs for step in self.steps))} GFLOP an image"
        return table(
            f"Plan for up to {self.request.max_batch} images of {H}x{W}, float32{exact}{dense}{outputs}",
            ("step", "algorithm", "buffer", "at a time", "GFLOP/image", "weights"),
            rows,
            f"{total}, {megabytes(sum(memory.values()))} of buffers, {packed} of packed weights",
        )


def cut(made: list[Any]) -> tuple[list[list[Any]], list[Any]]:
    """The steps on images in stages, each from a convolution to the last step before the one after a pooling; and
    those on rows."""
    stages: list[list[Any]] = [[]]
    for step in made:
        if isinstance(step, Convolution) and any(isinstance(before, MaxPool | AvgPool) for before in stages[-1]):
            stages.append([])
        if not isinstance(step.source, Rows):
            stages[-1].append(step)
    return stages, [step for step in made if isinstance(step.source, Rows)]


def parts(count: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, length) of as few parts of `count` as have at most `most` each, all alike but for one."""
    pieces = -(-count // most)
    for i in range(pieces):
        first, end = i * count // pieces, (i + 1) * count // pieces
        yield first, end - first
