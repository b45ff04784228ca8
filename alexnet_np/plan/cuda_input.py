"""How images come to a plan on the GPU: float32 as the model takes them, or bytes that are normalised there.

Bytes on the host go through page-locked memory. There are two such buffers, which take turns: while the GPU fetches
one, the next images can be written to the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_np.device import Array
from alexnet_np.errors import ArgumentError, BackendError
from alexnet_np.kernels import preprocess_cuda
from alexnet_np.kernels.gpu.arguments import address
from alexnet_np.kernels.gpu.runtime import contiguous
from alexnet_np.models import AlexNet
from alexnet_np.plan import images

SLOTS = 2


class Slot:
    """Page-locked memory for one batch of bytes; `fence` says when the GPU has fetched what was last sent from it."""

    def __init__(self, queue: Any, nbytes: int) -> None:
        self.memory, self.fence = queue.pinned(nbytes), queue.fence()

    def holds(self, pixels: np.ndarray) -> bool:
        start = address(self.memory)
        return start <= address(pixels) < start + max(self.memory.nbytes, 1)


class Input:
    """The images of one plan, at most `most` at a time."""

    def __init__(self, queue: Any, model: AlexNet, most: int) -> None:
        self.queue, self.model, self.most = queue, model, most
        self.slots: list[Slot] = []
        self.bytes = np.empty(0, np.uint8)  # on the GPU, once needed: what the slots are copied to

    def pinned(self, count: int, size: tuple[int, int]) -> np.ndarray:
        """Page-locked uint8 (count,H,W,C) to write images into; waits until the GPU has fetched what it held before.

        It stays the caller's until the next but one of these calls, or of those with bytes from elsewhere on the host.
        """
        if not 1 <= count <= self.most:
            raise ArgumentError(f"plan: pinned_input takes 1 to {self.most} images, got {count}")
        shape = (count, *size, self.model.in_channels)
        nbytes = int(np.prod(shape))
        if not self.slots or self.slots[0].memory.nbytes < nbytes:
            for slot in self.slots:
                slot.fence.wait()
            room = self.most * nbytes // count
            self.slots = [Slot(self.queue, room) for _ in range(SLOTS)]
            self.bytes = self.queue.allocate(room)
        slot = self.slots.pop(0)
        self.slots.append(slot)
        slot.fence.wait()
        return slot.memory[:nbytes].reshape(shape)

    def placed(self, x: Array) -> Array:
        """`x` in C order. Raises BackendError where it is neither on this GPU nor bytes on the host."""
        if self.queue.owns(x):
            return contiguous(x)
        if x.dtype != np.uint8 or not isinstance(x, np.ndarray):
            where = self.queue.name_of(x)
            raise BackendError(f"plan: x is {where}, not where the plan is; move it with cupy.asarray(x)")
        return x

    def stage(self, x: Array) -> tuple[Array, Slot | None]:
        """Bytes on the host as they lie in a slot; anything else as it is. Before the plan's turn: it may wait."""
        if self.queue.owns(x):
            return x, None
        slot = next((slot for slot in self.slots if slot.holds(x)), None)
        if slot is None or not x.flags.c_contiguous:
            room = self.pinned(len(x), x.shape[1:3])
            np.copyto(room, x)
            x, slot = room, self.slots[-1]
        return x, slot

    def load(self, x: Array, slot: Slot | None, target: Array) -> None:
        """What `stage` gave, as float32 (N,C,H,W) into `target`. Inside the plan's turn."""
        if x.dtype == np.float32:
            self.queue.copy(x, target)
            return
        if slot is not None:
            pixels = self.bytes[: x.nbytes].reshape(x.shape)
            self.queue.copy(x, pixels)
            slot.fence.set()
            x = pixels
        recipe = images.recipe(self.model)
        preprocess_cuda.compute_into(x, recipe.scale, recipe.mean, recipe.std, target, recipe.order)
