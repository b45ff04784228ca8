"""What was measured for choices.py, kept in one file: for every machine a table of its own, a dict a row.

A table is found by the processor and the number of threads, or by the GPU, and the package's version: a home folder
may be shared by many machines, and what was fastest on one need not be on another. Where nothing was measured, TABLE
alone is asked.
What measures: alexnet_np/measure/tuning.py.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alexnet_np import threads
from alexnet_np.errors import DataError, one_line
from alexnet_np.files import own_cache, replacing

FORMAT = "alexnet-np choices 1"
DEVICES = ("cpu", "gpu")

Tables = dict[str, list[dict[str, Any]]]  # machine -> rows as Row.as_dict has them


def machine(device: str = "cpu") -> str:
    """What a table is found by: the processor that code is compiled for, threads, version; or the GPU and version.

    Empty where code is compiled for none: without Numba, without a GPU.
    """
    if device == "gpu":
        from alexnet_np.kernels.gpu.runtime import device_name  # only now: a CPU needs none of it

        name = device_name()
        return f"{name}, {_version()}" if name else ""
    processor = _processor()
    return f"{processor}, {threads.get_num_threads()} threads, {_version()}" if processor else ""


@cache
def _processor() -> str:
    """What Numba compiles for; empty without Numba. Found once: it is asked in every call of a kernel."""
    if find_spec("numba") is None:
        return ""
    import llvmlite.binding
    from numba import config

    from alexnet_np.kernels.cpu.simd import host

    return f"{config.CPU_NAME or llvmlite.binding.get_host_cpu_name()} {host()}"


@cache
def _version() -> str:
    try:
        return version("alexnet-np")
    except PackageNotFoundError:  # not installed
        return "source"


def file() -> Path:
    """Where the tables are kept. Raises DataError for a user without a home."""
    try:
        return own_cache() / "choices.json"
    except RuntimeError as error:
        raise DataError(f"choices: nowhere to keep them: {one_line(error)}; set ALEXNET_NP_HOME") from error


def read(path: Path) -> Tables:
    """The tables of a file. Raises DataError where it is none of ours."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    except ValueError as error:
        raise DataError(
            f"{path}: not a table of choices: {one_line(error)}; alexnet tune --drop removes ours"
        ) from error
    if not isinstance(held, dict) or held.get("format") != FORMAT or not isinstance(held.get("machines"), dict):
        raise DataError(f"{path}: not a table of choices: no {FORMAT!r} in it; alexnet tune --drop removes ours")
    for name, rows in held["machines"].items():
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{path}: not a table of choices: {name!r} has no rows")
    return dict(held["machines"])


def write(tables: Tables, path: Path) -> None:
    """Whole or not at all. Raises DataError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(json.dumps({"format": FORMAT, "machines": tables}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or one_line(error)}") from error


def kept() -> Tables:
    """All that is kept; nothing where there is no file."""
    path = file()
    return read(path) if path.exists() else {}


def drop() -> bool:
    """Forget all that was measured, on every machine; whether there was anything."""
    path = file()
    there = path.exists()
    path.unlink(missing_ok=True)
    return there
