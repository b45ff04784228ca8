"""A network compiled for inference on the GPU: `plan = compile(model.to("cuda")); logits = plan(x)`.

What it saves over calling the model: nothing is allocated and nothing decided in the loop. The launches and products
of one forward are written down once for each size of batch (alexnet_np/kernels/gpu/tape.py), on memory in which every
array has its place and arrays that are not needed together share it; after a first run they are captured into one CUDA
graph, so that a call is a copy of the images, one launch, and a copy of the results. Bias and ReLU are part of the pass
that ends a product, and max pooling does not keep which pixel won. The weights are copies, split in two for "tf32x3".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from alexnet_np import layers
from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError, ShapeError
from alexnet_np.kernels.gemm_cuda import check_precision, matmul_precision
from alexnet_np.kernels.gpu.runtime import current_executor, recording
from alexnet_np.kernels.gpu.tape import Tape
from alexnet_np.plan import layout, steps
from alexnet_np.plan.base import InferencePlan, Request, Results, Shape
from alexnet_np.plan.cuda_input import Input
from alexnet_np.plan.cuda_steps import STEPS, DenseInt16
from alexnet_np.plan.cuda_weights import PreparedWeights
from alexnet_np.plan.table import gigaflops, megabytes, table

PROGRAMS = 8  # sizes of batch and image that a plan keeps ready


class Replay:
    """The calls of a tape whose memory is in place: run one by one the first time, from then on as one CUDA graph.

    The first run makes CUDA load the kernels and cuBLAS choose its own, neither of which may happen in a capture.
    """

    def __init__(self, tape: Tape, queue: Any) -> None:
        self.queue, self.calls = queue, tape.bind(queue)
        self.graph: Callable[[], None] | None = None

    def run(self) -> None:
        """Inside the queue's turn."""
        if self.graph is not None:
            return self.graph()
        for call in self.calls:
            call()
        self.graph = self.queue.capture(self.calls)
        return None


class CudaPlan(InferencePlan):
    """A few programs at a time, one for each size of image and batch; all work in the same memory, in turns."""

    def __init__(self, request: Request) -> None:
        self.precision = check_precision(request.precision)
        if request.exact and self.precision != "strict":
            raise ArgumentError(f"compile: exact=True needs precision 'strict', got {self.precision!r}")
        super().__init__(request._replace(precision=self.precision))
        self.queue = current_executor().queue(next(self.model.parameters()).data)
        self.input = Input(self.queue, self.model, self.max_batch)
        self.memory = self.queue.allocate(0)
        self._programs: OrderedDict[Shape, Program] = OrderedDict()
        made = self.steps_for(self.max_batch, request.size)
        self.weights = PreparedWeights(self.queue, self.model, made, self.precision)
        self._largest = self._program((self.max_batch, self.model.in_channels, *request.size))
        self.refresh()

    def pinned_input(self, count: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Page-locked uint8 (count,H,W,C) on the host: decode images into it, then call the plan with it.

        Two such buffers take turns, so the next one may be filled while the GPU works: it is the caller's until the
        second call after this one. `size`: by default what the plan was compiled for.
        """
        with self._lock:
            return self.input.pinned(count, size or self._largest.size)

    def _placed(self, x: Array) -> Array:
        return self.input.placed(x)

    def _run(self, x: Array, shape: Shape, results: Results) -> None:
        program = self._program(shape)
        x, slot = self.input.stage(x)
        with self.queue.turn():
            self.input.load(x, slot, program.x)
            program.replay.run()
            for name, result in results.items():
                self.queue.copy(program.outputs[name], result)

    def _refresh(self) -> None:
        with self.queue.turn():
            self.weights.refresh()
        self.weights.check()

    def _empty(self, shape: Shape) -> Array:
        return current_executor().empty(shape, np.dtype(np.float32), self.memory)

    def _owns(self, array: Any) -> bool:
        return self.queue.owns(array)

    def _name_of(self, array: Any) -> str:
        return self.queue.name_of(array)

    def _check_out(self, name: str, out: Any, shape: Shape) -> None:
        super()._check_out(name, out, shape)
        if not out.flags.c_contiguous:
            raise ShapeError(f"plan: {name} must be in C order, got strides {out.strides}")

    def steps_for(self, batch: int, size: tuple[int, int]) -> list[Any]:
        places = layout.walk(self.model, size, self.request.outputs)
        classes = STEPS if self.request.dense == "float32" else {**STEPS, layers.Linear: DenseInt16}
        return steps.make(places, steps.Options(batch, self.request.exact), classes)

    def _program(self, shape: Shape) -> Program:
        if shape not in self._programs:
            self._check_layers()
            if len(self._programs) >= PROGRAMS:
                self._programs.popitem(last=False)
            self._programs[shape] = Program(self, shape)
        self._programs.move_to_end(shape)
        return self._programs[shape]

    def room(self, nbytes: int) -> Array:
        """Memory that all programs work in, one at a time; a larger one than any before gets more."""
        if self.memory.nbytes < nbytes:
            self.memory = self.queue.allocate(nbytes)
        return self.memory

    def __repr__(self) -> str:
        largest, (H, W) = self._largest, self._largest.size
        outputs = "" if self.request.outputs is None else f", outputs {', '.join(self.request.outputs)}"
        dense = "" if self.request.dense == "float32" else f", dense {self.request.dense}"
        rows = []
        for line in largest.lines:
            packed = sum(array.nbytes for array in self.weights.arrays(line.step.name))
            buffer = f"{'x'.join(map(str, line.shape))} {megabytes(line.nbytes)}"
            numbers = (str(line.launches), gigaflops(line.step.macs), megabytes(packed) if packed else "")
            rows.append((line.step.name, line.step.algorithm, buffer, *numbers))
        total = f"{gigaflops(sum(line.step.macs for line in largest.lines))} GFLOP an image"
        memory = f"{megabytes(largest.nbytes)} of memory for {megabytes(largest.unshared)} of arrays"
        return table(
            f"Plan on the GPU for up to {self.max_batch} images of {H}x{W}, float32, "
            f"products {self.precision}{dense}{outputs}",
            ("step", "algorithm", "buffer", "launches", "GFLOP/image", "weights"),
            rows,
            f"{total}, {memory}, {megabytes(self.weights.total)} of weights",
        )


class Line(NamedTuple):
    """What a step's line in the plan's table says."""

    step: steps.Step
    shape: Shape  # of its output, for the whole batch
    nbytes: int
    launches: int


class Program:
    """One forward for one shape of input: where its images go, where its outputs come out, and how it is run."""

    def __init__(self, plan: CudaPlan, shape: Shape) -> None:
        self.size = (shape[2], shape[3])
        tape = Tape(plan.weights.tape)
        x = y = tape.enters(shape)
        self.lines: list[Line] = []
        outputs: Results = {}
        with recording(tape), matmul_precision(plan.precision):
            for step in plan.steps_for(shape[0], self.size):
                before = len(tape.calls)
                y = step.forward(y, plan.weights.prepared)
                self.lines.append(Line(step, y.shape, y.nbytes, len(tape.calls) - before))
                outputs |= {name: tape.leaves(y) for name in step.place.wanted}
        self.nbytes, self.unshared = tape.plan_memory(), sum(buffer.nbytes for buffer in tape.buffers)
        tape.put(plan.room(self.nbytes))
        self.x, self.outputs = tape.real(x), {name: tape.real(y) for name, y in outputs.items()}
        self.replay = Replay(tape, plan.queue)
