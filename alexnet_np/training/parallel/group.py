"""What the processes of a run have in common: messages between them, over MPI; alone, one process has no one to ask.

MPI moves bytes here and adds nothing, except where `sum` is asked for: its own sums depend on the library, on the
number of processes and on the size of the message.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from alexnet_np.errors import ArgumentError, MissingPackageError

# What a launcher of MPI says to its processes: Open MPI, MPICH and Intel MPI, MPICH under its own launcher, SLURM's PMI
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
HEARD = 0.5  # seconds: what a process said just before it ended all, a launcher that hears of the end first drops
MOST_PATIENCE = 10.0  # seconds that a process lets those of lower rank speak first
UNDER_SLURM = ("PMIX_RANK", "PMI_RANK")  # srun gives the size as SLURM_NTASKS, and one of these where MPI can start


class Group(Protocol):
    """Some processes, of which this is number `rank` of `size`. All must call the same methods in the same order."""

    rank: int
    size: int

    def collect(self, value: Any) -> list[Any]:
        """Everybody's value, in order of rank: small Python objects."""

    def share(self, value: Any) -> Any:
        """The value of rank 0."""

    def scatter(self, parts: np.ndarray, inbox: np.ndarray) -> None:
        """parts (size * n,): the r-th n go to rank r; `inbox` takes what came from every rank, in their order."""

    def gather(self, part: np.ndarray, whole: np.ndarray) -> None:
        """whole (size * n,): everybody's `part` (n,), in order of rank."""

    def gather_uneven(self, part: np.ndarray, whole: np.ndarray, counts: Sequence[int]) -> None:
        """The same where rank r's part has counts[r] numbers."""

    def scatter_uneven(self, parts: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        """parts: counts[r] numbers for rank r, one after the other. Returns (size, counts[rank]): what came."""

    def sum(self, numbers: np.ndarray) -> None:
        """Add up everybody's numbers, in place, in whatever order the library takes them."""

    def end(self, code: int) -> None:
        """End every process at once. Does not return."""


class Alone:
    """A process by itself."""

    rank, size = 0, 1

    def collect(self, value: Any) -> list[Any]:
        return [value]

    def share(self, value: Any) -> Any:
        return value

    def scatter(self, parts: np.ndarray, inbox: np.ndarray) -> None:
        inbox[...] = parts

    def gather(self, part: np.ndarray, whole: np.ndarray) -> None:
        whole[...] = part

    def gather_uneven(self, part: np.ndarray, whole: np.ndarray, counts: Sequence[int]) -> None:
        whole[...] = part

    def scatter_uneven(self, parts: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        return parts.reshape(1, -1)

    def sum(self, numbers: np.ndarray) -> None:
        pass

    def end(self, code: int) -> None:
        raise SystemExit(code)


class Mpi:
    """The processes that mpirun or srun started."""

    def __init__(self, communicator: Any = None) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._world = MPI.COMM_WORLD if communicator is None else communicator
        self.rank, self.size = self._world.rank, self._world.size

    def collect(self, value: Any) -> list[Any]:
        return list(self._world.allgather(value))

    def share(self, value: Any) -> Any:
        return self._world.bcast(value)

    def scatter(self, parts: np.ndarray, inbox: np.ndarray) -> None:
        self._world.Alltoall(parts, inbox)

    def gather(self, part: np.ndarray, whole: np.ndarray) -> None:
        self._world.Allgather(part, whole)

    def gather_uneven(self, part: np.ndarray, whole: np.ndarray, counts: Sequence[int]) -> None:
        self._world.Allgatherv(part, [whole, list(counts)])

    def scatter_uneven(self, parts: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        inbox = np.empty((self.size, counts[self.rank]), parts.dtype)
        self._world.Alltoallv([parts, list(counts)], [inbox, [counts[self.rank]] * self.size])
        return inbox

    def sum(self, numbers: np.ndarray) -> None:
        self._world.Allreduce(self._mpi.IN_PLACE, numbers)

    def end(self, code: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(HEARD)
        if "PRTE_LAUNCHED" not in os.environ:  # Open MPI's mpirun ends all where one leaves so, and says less about it
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Abort says in many words that it was called
            self._world.Abort(code)
        os._exit(code)  # under some launchers Abort ends the others and returns


def processes() -> int:
    """How many were started together, as the launcher's environment says; 1 without one."""
    for name in SIZES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    if any(name in os.environ for name in UNDER_SLURM) and os.environ.get("SLURM_NTASKS", "").isdigit():
        return int(os.environ["SLURM_NTASKS"])
    return 1


def speaks() -> bool:
    """Whether this process is the one to say what all have to say: rank 0, as the launcher's environment has it."""
    return processes() == 1 or next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"


def hear_out() -> None:
    """Called before an end that all processes come to alike, so that the launcher hears of it what rank 0 has said.

    It ends them all with the first one that leaves: the others therefore leave after rank 0, and that one not at once.
    """
    if processes() > 1:
        time.sleep(HEARD if speaks() else MOST_PATIENCE)


@cache
def world() -> Group:
    """The processes that were started together. Raises MissingPackageError where there are several and no mpi4py."""
    started = processes()
    if started == 1:
        return Alone()
    if find_spec("mpi4py") is None:
        raise MissingPackageError(
            f"started as one of {started} processes, which needs mpi4py: pip install mpi4py, or leave mpirun out"
        )
    found = Mpi()
    if found.size != started:
        raise ArgumentError(
            f"the launcher started {started} processes, and MPI knows of {found.size}: mpirun is of another MPI than "
            "the one mpi4py found; use that one's mpirun"
        )
    return found
