"""A network compiled for inference on the GPU: `plan = compile(model.to("cuda")); logits = plan(x)`.

What it saves over calling the model: nothing is allocated and nothing decided in the loop. The launches and products
of one forward are written down once for each size of batch (alexnet_np/kernels/gpu/tape.py), on memory in which every
array has its place and arrays that are not needed together share it; after a first run they are captured into one CUDA
graph, so that a call is a copy of the images, one launch, and a copy of the logits. Bias and ReLU are part of the pass
that ends a product, and max pooling does not keep which pixel won.

The weights are copies (split in two for "tf32x3"): after training further, call `refresh()`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError, BackendError, DtypeError, ShapeError
from alexnet_np.kernels.gemm_cuda import check_precision, matmul_precision
from alexnet_np.kernels.gpu.runtime import contiguous, current_executor, recording
from alexnet_np.kernels.gpu.tape import Tape
from alexnet_np.models import AlexNet
from alexnet_np.plan import megabytes
from alexnet_np.plan.cuda_input import Input
from alexnet_np.plan.cuda_steps import Step, Weighted, steps_of

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


class CudaPlan:
    """See `compile` and the head of this file. Calls from several threads take turns, since they share the memory."""

    def __init__(
        self, model: AlexNet, max_batch: int, exact: bool, size: tuple[int, int], precision: str | None = None
    ) -> None:
        self.model, self.max_batch = model, max_batch
        self.precision = check_precision(precision)
        if exact and self.precision != "strict":
            raise ArgumentError(f"compile: exact=True needs precision 'strict', got {self.precision!r}")
        self.queue = current_executor().queue(next(model.parameters()).data)
        self.input = Input(self.queue, model, max_batch)
        self.memory = self.queue.allocate(0)
        self._lock = threading.Lock()
        self._programs: OrderedDict[tuple[int, ...], Program] = OrderedDict()
        self.weights = PreparedWeights(self, list(steps_of(model, size, training=False)))
        self._largest = self._program((max_batch, model.in_channels, *size))
        self.refresh()

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        """Logits (N,num_classes) of x, N up to max_batch; queued on the caller's stream, not waited for.

        `x`: float32 (N,C,H,W) on the GPU; or uint8 (N,H,W,C) there or on the host, best in the page-locked memory of
        `pinned_input`, which is normalised on the GPU to the very bits of the preset's `preprocess`. `out`: float32
        (N,num_classes) in C order on the GPU to write to, where not even the logits are to be allocated.
        Raises ShapeError, DtypeError, ArgumentError, BackendError.
        """
        x, shape = self.input.check(x)
        if shape[0] > self.max_batch:
            raise ArgumentError(f"plan: {shape[0]} images, but it was compiled with max_batch={self.max_batch}")
        with self._lock:
            out = self._output((shape[0], self.model.num_classes), out)
            if shape[0]:
                self._run(x, shape, out)
        return out

    def _run(self, x: Array, shape: tuple[int, ...], out: Array) -> None:
        program = self._program(shape)
        x, slot = self.input.stage(x)
        with self.queue.turn():
            self.input.load(x, slot, program.x)
            program.replay.run()
            self.queue.copy(program.logits, out)

    def _output(self, shape: tuple[int, int], out: Array | None) -> Array:
        if out is None:
            return current_executor().empty(shape, np.dtype(np.float32), self.memory)
        if not self.queue.owns(out):
            raise BackendError(f"plan: out is {self.queue.name_of(out)}, not where the plan is")
        if out.dtype != np.float32:
            raise DtypeError(f"plan: out must be float32, got {out.dtype}")
        if out.shape != shape or not out.flags.c_contiguous:
            raise ShapeError(f"plan: out must be {shape} in C order, got {out.shape} with strides {out.strides}")
        return out

    def pinned_input(self, count: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Page-locked uint8 (count,H,W,C) on the host: decode images into it, then call the plan with it.

        Two such buffers take turns, so the next one may be filled while the GPU works: it is the caller's until the
        second call after this one. `size`: by default what the plan was compiled for.
        """
        with self._lock:
            return self.input.pinned(count, size or self._largest.size)

    def refresh(self) -> None:
        """Read the model's weights again, after they have changed."""
        with self._lock, self.queue.turn():
            self.weights.refresh()

    def _program(self, shape: tuple[int, ...]) -> Program:
        if shape not in self._programs:
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
        largest, precision = self._largest, self.precision
        H, W = largest.size
        lines = [f"Plan on the GPU for up to {self.max_batch} images of {H}x{W}, float32, products {precision}"]
        lines.append(f"  {'step':<14}{'algorithm':<30}{'buffer':<28}{'launches':>9}{'GFLOP/image':>13}{'weights':>10}")
        for line in largest.lines:
            weights = sum(array.nbytes for array in self.weights.arrays(line.step.name))
            flops = f"{2e-9 * line.step.macs:.3f}" if line.step.macs else ""
            buffer = f"{'x'.join(map(str, line.shape))} {megabytes(line.nbytes)}"
            lines.append(
                f"  {line.step.name:<14}{line.step.algorithm:<30}{buffer:<28}{line.launches:>9}{flops:>13}"
                f"{megabytes(weights) if weights else '':>10}"
            )
        gigaflops = 2e-9 * sum(line.step.macs for line in largest.lines)
        lines.append(
            f"  {gigaflops:.3f} GFLOP an image, {megabytes(largest.nbytes)} of memory for "
            f"{megabytes(largest.unshared)} of arrays, {megabytes(self.weights.total)} of weights"
        )
        return "\n".join(lines)


class PreparedWeights:
    """Copies of a model's parameters, as the products take them: written again by `refresh`."""

    def __init__(self, plan: CudaPlan, steps: list[Step]) -> None:
        self.plan, self.tape = plan, Tape()
        self.prepared: dict[str, Any] = {}
        self.copies = {name: self.tape.stays(self.tape.ghost(p.shape)) for name, p in plan.model.named_parameters()}
        with recording(self.tape), matmul_precision(plan.precision):
            for step in steps:
                if isinstance(step, Weighted):
                    name, bias = f"{step.name}.weight", f"{step.name}.bias"
                    self.prepared[name] = step.prepare(self.copies[name])
                    if bias in self.copies:
                        self.prepared[bias] = self.copies[bias]
        for step in steps:
            for array in self.arrays(step.name):
                self.tape.stays(array)
        self.total = self.tape.plan_memory()
        self.tape.put(plan.queue.allocate(self.total))
        self.calls = self.tape.bind(plan.queue)

    def refresh(self) -> None:
        """Inside the queue's turn."""
        for name, parameter in self.plan.model.named_parameters():
            if not self.plan.queue.owns(parameter.data):
                where = self.plan.queue.name_of(parameter.data)
                raise BackendError(f"plan: {name} is {where} now; move the model back, or compile it anew")
            copy = self.copies[name]
            if parameter.data.shape != copy.shape or parameter.data.dtype != copy.dtype:
                have = f"{parameter.data.dtype} {parameter.data.shape}"
                raise ShapeError(f"plan: {name} is {have} now and was float32 {copy.shape}; compile the model anew")
            self.plan.queue.copy(contiguous(parameter.data), self.tape.real(copy))
        for call in self.calls:
            call()

    def arrays(self, step: str) -> list[Array]:
        """What is kept for a step."""
        operand, bias = self.prepared.get(f"{step}.weight"), self.prepared.get(f"{step}.bias")
        arrays = [] if bias is None else [bias]
        if operand is not None:
            split = operand.prepared.low is not None  # else the prepared weight is a view of the weight
            arrays += [operand.weight, *(operand.prepared if split else ())]
        return arrays


class Line(NamedTuple):
    """What a step's line in the plan's picture says."""

    step: Step
    shape: tuple[int, ...]  # of its output, for the whole batch
    nbytes: int
    launches: int


class Program:
    """One forward for one shape of input: where its images go, where its logits come out, and how it is run."""

    def __init__(self, plan: CudaPlan, shape: tuple[int, ...]) -> None:
        self.size = (shape[2], shape[3])
        tape = Tape(plan.weights.tape)
        x = y = tape.enters(shape)
        self.lines = [Line(Step("input", plan.model), shape, x.nbytes, 0)]
        with recording(tape), matmul_precision(plan.precision):
            for step in steps_of(plan.model, self.size, training=False):
                before = len(tape.calls)
                y = step.forward(y, plan.weights.prepared, keep=False)
                self.lines.append(Line(step, y.shape, y.nbytes, len(tape.calls) - before))
        tape.leaves(y)
        self.nbytes, self.unshared = tape.plan_memory(), sum(buffer.nbytes for buffer in tape.buffers)
        tape.put(plan.room(self.nbytes))
        self.x, self.logits = tape.real(x), tape.real(y)
        self.replay = Replay(tape, plan.queue)
