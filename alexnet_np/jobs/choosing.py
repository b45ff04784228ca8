"""Who computes a job: the plan or the array operations, and how many workers at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alexnet_np import threads
from alexnet_np.backend import BACKENDS, available_backends, check_backend
from alexnet_np.device import on_gpu
from alexnet_np.errors import ArgumentError
from alexnet_np.kernels.cpu import code_cache
from alexnet_np.models import AlexNet

AUTO = "auto"
ENGINES = (AUTO, *BACKENDS)
HANDFUL = 8  # images that are done by the array operations before the kernels are compiled

# The first and the last kernel of a plan that is fed with bytes: where both are on the disk, so are those between.
FIRST_AND_LAST = ("preprocess_nhwc_numba.bytes_to_depth", "linear_numba.product_of_packed")


@dataclass(frozen=True)
class Choice:
    """Who computes. Stands in a job's report."""

    engine: str  # "plan", or "arrays": the array operations, layer by layer
    backend: str  # numpy, numba, cupy or cuda
    why: str


def choose(backend: str | None, images: int, model: AlexNet) -> Choice:
    """`backend`: one of backend.py's, whose fastest way is taken; or None or "auto".

    "auto" leaves a model where it is. On the CPU it takes the plan where Numba is installed and there is more than a
    handful of images, or the plan's kernels are on the disk already; else, as for one picture on a cold machine, the
    array operations, which have nothing to compile. Raises BackendError, ArgumentError.
    """
    if backend not in (None, *ENGINES):
        raise ArgumentError(f"unknown backend {backend!r}: choose one of {', '.join(ENGINES)}")
    if backend not in (None, AUTO):
        chosen = check_backend(str(backend))
        planned = chosen in ("numba", "cuda") and model.dtype == np.float32
        return Choice("plan" if planned else "arrays", chosen, "asked for")
    if on_gpu(next(model.parameters()).data):
        planned = model.dtype == np.float32
        return Choice("plan" if planned else "arrays", "cuda" if planned else "cupy", "the model is on the GPU")
    if model.dtype != np.float32:
        return Choice("arrays", "numpy", f"plans are float32, the model is {model.dtype}")
    usable = available_backends()["numba"]
    if usable is not True:
        return Choice("arrays", "numpy", str(usable))
    if images > HANDFUL:
        return Choice("plan", "numba", "more than a handful of images")
    if kernels_on_disk():
        return Choice("plan", "numba", "its kernels are compiled")
    return Choice("arrays", "numpy", "a handful of images, and kernels that are not compiled yet")


def kernels_on_disk() -> bool:
    """Whether the kernels of a plan were compiled by an earlier process."""
    places = code_cache.places()
    return all(any(any(place.glob(f"{name}-*.kernel")) for place in places) for name in FIRST_AND_LAST)


def workers_at_once(choice: Choice, most: int) -> int:
    """As many plans as there are cores, each on its own."""
    if (choice.engine, choice.backend) != ("plan", "numba"):
        return 1
    return max(1, min(threads.get_num_threads(), most))
