"""Gradients summed over all processes of a group, in buckets, while the backward still computes the rest.

A gradient is sent as soon as it is there: the last layers' first, which hold most of the bytes. A thread does it, or on
a GPU a second stream (behind.py). Buckets of about 25 MB are large enough for the wire and small enough that the first
is on its way early.

    exact   every process gets a slice of everybody's gradients, adds them by the tree, and all gather the sums: the
            bytes of a ring's allreduce, and an order of addition that no library chooses
    fast    the library's allreduce: the last bits depend on it, and on the number of processes

Source: buckets filled in backward order: Li et al., "PyTorch Distributed" (2020), arXiv:2006.15704, sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from alexnet_np.device import Array, array_module
from alexnet_np.parameters import Parameter
from alexnet_np.training.parallel.behind import Behind, Later, behind
from alexnet_np.training.parallel.group import Group
from alexnet_np.training.parallel.trees import fold

BUCKET = 25e6  # bytes
ALIGNED = 16  # numbers: every process's slice begins on a cache line


class Bucket:
    """Some parameters' gradients, one after the other in one array."""

    def __init__(self, parameters: Sequence[Parameter], size: int) -> None:
        data = parameters[0].data
        xp = array_module(data)
        self.flat = xp.zeros(_room(parameters, size), data.dtype)
        self.inbox = xp.empty_like(self.flat)
        self.views: list[Array] = []
        at = 0
        for parameter in parameters:
            self.views.append(self.flat[at : at + parameter.size].reshape(parameter.shape))
            at += parameter.size
        self.missing = len(parameters)


class Exchange:
    """Sums of the gradients of `parameters`, which become ready in about the reverse of their order."""

    def __init__(
        self, group: Group, parameters: Sequence[Parameter], reduce: str, bucket: float = BUCKET, overlap: bool = True
    ) -> None:
        self.group, self.exact = group, reduce == "exact"
        self.places: dict[int, tuple[Bucket, int]] = {}  # of a parameter, by id
        self.buckets: list[Bucket] = []
        for members in _in_buckets(parameters, bucket):
            self.buckets.append(Bucket(members, group.size))
            self.places |= {id(member): (self.buckets[-1], i) for i, member in enumerate(members)}
        self._left = self._fresh()
        self._behind: Behind = behind(parameters[0].data) if overlap else Later()

    @property
    def waited(self) -> float:
        """Seconds that `finish` has waited, that is, of the exchange that no computation hid."""
        return self._behind.waited

    def _fresh(self) -> dict[int, int]:
        return {id(bucket): bucket.missing for bucket in self.buckets}

    def ready(self, parameter: Parameter) -> None:
        """Take its gradient. What stands in `grad` afterwards is the sum, once `finish` has returned."""
        bucket, i = self.places[id(parameter)]
        if parameter.grad is not bucket.views[i]:
            bucket.views[i][...] = parameter.grad
            parameter.grad = bucket.views[i]
        self._left[id(bucket)] -= 1
        if self._left[id(bucket)] == 0:
            self._behind.put(partial(self._sum, bucket))

    def place(self, parameter: Parameter) -> Array:
        """Where its gradient goes; who computes it there spares a copy."""
        bucket, i = self.places[id(parameter)]
        return bucket.views[i]

    def finish(self) -> None:
        """Wait until every sum is there. Raises what the exchange raised."""
        self._behind.wait()
        self._left = self._fresh()

    def close(self) -> None:
        """End whoever does it."""
        self._behind.close()

    def _sum(self, bucket: Bucket) -> None:
        flat, group = bucket.flat, self.group
        if not self.exact:
            group.sum(flat)
            return
        group.scatter(flat, bucket.inbox)
        group.gather(fold(_add, list(bucket.inbox.reshape(group.size, -1))), flat)


def _add(first: Any, second: Any) -> Any:
    first += second
    return first


def rounded_up(parameters: Sequence[Parameter], size: int) -> int:
    """How many numbers `size` processes exchange as these parameters' gradients."""
    return sum(_room(members, size) for members in _in_buckets(parameters, BUCKET))


def _room(parameters: Sequence[Parameter], size: int) -> int:
    """Of one bucket: as many as its gradients have, and what fills everybody's slice up."""
    unit = size * ALIGNED
    return -(-sum(p.size for p in parameters) // unit) * unit


def _in_buckets(parameters: Sequence[Parameter], most: float) -> list[list[Parameter]]:
    """In the order in which gradients come, about `most` bytes each; a larger parameter has one to itself."""
    found: list[list[Parameter]] = []
    size = 0
    for parameter in reversed(parameters):
        if not found or size + parameter.data.nbytes > most:
            found.append([])
            size = 0
        found[-1].append(parameter)
        size += parameter.data.nbytes
    return found
