"""A model made ready to compute one of its outputs for a job, in as many workers as run at once.

On the CPU a worker is a plan that runs on one thread: plans share the packed weights and wait for nobody, where a team
of threads waits for its slowest at every step. The array operations, and a GPU, are one worker that others feed.
An image's row is the same to the bit in whatever chunk a plan computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from alexnet_np import threads
from alexnet_np.backend import use_backend
from alexnet_np.data.preprocess import normalise
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.device import Array, beside, to_cpu
from alexnet_np.errors import AlexNetError, ArgumentError, one_line
from alexnet_np.identity import recipe_of
from alexnet_np.jobs import residence
from alexnet_np.jobs.choosing import AUTO, Choice, choose, workers_at_once
from alexnet_np.kernels.choices import Row, overriding
from alexnet_np.layers import no_grad, stand_in
from alexnet_np.models import AlexNet
from alexnet_np.plan import compile as compile_plan
from alexnet_np.text import counted

LOGITS = "logits"
ONE_ORDER = Row(op="linear", device="cpu", planned=True, block_k=256)  # of sums, however many images
FEEDERS = 3  # threads that decode for one worker, while it computes another's chunk

Compute = Callable[[np.ndarray], np.ndarray]  # uint8 (N,H,W,C), or float (N,C,H,W) -> a row an image


@dataclass(frozen=True)
class Engine:
    """`workers`: one for each thread of the job. They may run at the same time."""

    choice: Choice
    recipe: Preprocessing
    chunk: int  # images that a worker takes at a time, at most
    workers: list[Compute]
    at_once: int  # of the workers; the others wait, with their images decoded

    def described(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self.choice), "workers": self.at_once, "chunk": self.chunk}


def open_engine(
    model: AlexNet,
    output: str = LOGITS,
    *,
    images: int,
    size: int | None = None,
    backend: str | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    forget: bool = False,
) -> Engine:
    """`output`: "logits", or the name of a layer. `images`: how many there will be, by which "auto" decides.

    `size`: their side, by default the preset's. `workers`: how many threads carry images, by default one a core.
    `forget`: drop the model's own weights where they have been packed; then it is good for this job alone. Its mode
    is left at eval. Raises ArgumentError, BackendError.
    """
    residence.reuse()
    choice = choose(backend, images, model.eval())
    if choice.backend in ("cupy", "cuda"):
        model.to(choice.backend)
    recipe = recipe_of(model)
    at_once = workers_at_once(choice, min(images, workers or images))
    if choice.engine == "plan":
        try:
            most, own = max(1, min(batch_size, images)), forget and choice.backend == "numba"
            plan: Any = compile_plan(model, most, (output,), size=size, forget=own, at_once=at_once)
        except AlexNetError as error:
            if backend not in (None, AUTO):
                raise
            choice = Choice("arrays", "numpy" if choice.backend == "numba" else "cupy", one_line(error))
    if choice.engine == "arrays":
        return fed(with_arrays(model, output, choice.backend, recipe), choice, recipe, batch_size, workers)
    if at_once > 1:
        plans = [plan, *(plan.twin() for _ in range(at_once - 1))]
        chunk = min(batch_size, -(-images // at_once))
        made = Engine(choice, recipe, chunk, [with_plan(each, output, threads.alone) for each in plans], at_once)
    else:
        made = fed(with_plan(plan, output, nullcontext), choice, recipe, batch_size, workers)
    if forget and choice.backend == "numba":
        drop_weights(model)
        residence.drop_compiler()
        residence.trim()
    return made


def fed(compute: Compute, choice: Choice, recipe: Preprocessing, chunk: int, workers: int | None) -> Engine:
    """One that computes with all that the device has, while others decode for it."""
    turn = threads.Turn()

    def wait_and_compute(x: np.ndarray) -> np.ndarray:
        with turn:
            return compute(x)

    return Engine(choice, recipe, chunk, [wait_and_compute] * (workers or FEEDERS), 1)


def with_plan(plan: Any, output: str, setting: Callable[[], AbstractContextManager]) -> Compute:
    def compute(x: np.ndarray) -> np.ndarray:
        with setting(), overriding(ONE_ORDER):
            return finite(to_cpu(plan(x)[output]), output)

    return compute


def with_arrays(model: AlexNet, output: str, backend: str, recipe: Preprocessing) -> Compute:
    def compute(x: np.ndarray) -> np.ndarray:
        if x.dtype == np.uint8:
            x = normalise(x, recipe, np.empty((len(x), *recipe.shape), model.dtype))
        x = beside(x, next(model.parameters()).data)
        with use_backend(backend), no_grad():
            return finite(to_cpu(model(x) if output == LOGITS else up_to(model, output, x)), output)

    return compute


def finite(rows: np.ndarray, output: str) -> np.ndarray:
    """`rows` if every one is made of numbers: an image always is, so that the network is at fault. Raises AlexNetError.

    The trap: NaN compares with nothing, and sorts as if the first classes were the likeliest.
    """
    bad = len(rows) - int(np.isfinite(rows).all(tuple(range(1, rows.ndim))).sum())
    if bad:
        raise AlexNetError(
            f"{output} of {bad} of {counted(len(rows), 'image')} are NaN or infinite: so are some of the network's "
            "weights, or they are too large for its input; `alexnet weights inspect FILE --finite` says which"
        )
    return rows


def up_to(model: AlexNet, output: str, x: Array) -> Array:
    """What the layer `output` gives. Raises ArgumentError where there is none."""
    names = [name for name, _ in model.leaves()]
    if output not in names:
        raise ArgumentError(f"no layer is called {output!r}: choose one of {', '.join(names)}")
    for _, layer in list(model.leaves())[: names.index(output) + 1]:
        x = layer(x)
    return x


def drop_weights(model: AlexNet) -> None:
    """Leave of the parameters their shapes alone: 244 MB less for torchvision's network."""
    for parameter in model.parameters():
        parameter.data = stand_in(parameter.shape)
