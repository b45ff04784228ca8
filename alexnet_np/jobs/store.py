"""Files below OUT, the folder or address of a job on many machines: parts, and the network that its workers read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_np.errors import AlexNetError, DataError, one_line
from alexnet_np.files import replacing
from alexnet_np.identity import alexnet
from alexnet_np.jobs.listing import file_system, is_url
from alexnet_np.models import AlexNet
from alexnet_np.weights.writing import write

KEY = b"alexnet_np"  # of what a footer says


def part_name(number: int) -> str:
    return f"part-{number:06d}.parquet"


def below(out: str, name: str) -> str:
    return f"{out.rstrip('/')}/{name}"


@contextmanager
def reaching(out: str, what: str) -> Iterator[None]:
    """Whatever keeps a file from being written, or OUT from being seen, is one line. Raises DataError."""
    try:
        yield
    except AlexNetError:
        raise
    except Exception as error:  # each file system has errors of its own
        if not (is_url(out) or isinstance(error, OSError)):
            raise
        raise DataError(f"{out}: {what}: {getattr(error, 'strerror', None) or one_line(error)}") from None


def put(out: str, name: str, content: bytes) -> None:
    """Whole or not at all: by renaming, or as stores of objects do it by themselves. Raises DataError."""
    with reaching(out, f"{name} cannot be written"):
        if is_url(out):
            system, path = file_system(below(out, name))
            system.pipe_file(path, content)
        else:
            Path(out).mkdir(parents=True, exist_ok=True)
            with replacing(Path(out) / name) as temporary:
                temporary.write_bytes(content)


def put_network(out: str, name: str, model: AlexNet) -> None:
    """Where every worker can read it. Raises DataError."""
    with reaching(out, f"{name} cannot be written"):
        if is_url(out):
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / name, model)
                system, path = file_system(below(out, name))
                system.put_file(str(Path(folder) / name), path)
        else:
            Path(out).mkdir(parents=True, exist_ok=True)
            write(Path(out) / name, model)


def get_network(out: str, name: str, dtype: str) -> AlexNet:
    if not is_url(out):
        return alexnet(None, str(Path(out) / name), dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        system, path = file_system(below(out, name))
        system.get_file(path, str(file))
        return alexnet(None, str(file), dtype=dtype)


def about(out: str, name: str) -> dict[str, Any]:
    """What a part's footer says; nothing for what is broken or not ours."""
    from pyarrow import ArrowException, parquet

    try:
        with opened(out, name) as file:
            return json.loads(parquet.read_metadata(file).metadata[KEY])
    except (OSError, KeyError, TypeError, ValueError, ArrowException):
        return {}


def read(out: str, name: str, columns: Sequence[str]) -> Any:
    """Some columns of a part, as a pyarrow table. Raises DataError."""
    from pyarrow import ArrowException, parquet

    try:
        with opened(out, name) as file:
            return parquet.read_table(file, columns=list(columns))
    except (OSError, ArrowException) as error:
        raise DataError(f"{below(out, name)}: cannot be read: {one_line(error)}") from None


@contextmanager
def opened(out: str, name: str) -> Iterator[Any]:
    system, path = file_system(below(out, name)) if is_url(out) else (None, "")
    with (Path(out) / name).open("rb") if system is None else system.open(path, "rb") as file:
        yield file


def drop(out: str, name: str) -> None:
    """Remove a file below OUT, if it is there."""
    if is_url(out):
        system, path = file_system(below(out, name))
        if system.exists(path):
            system.rm_file(path)
    else:
        (Path(out) / name).unlink(missing_ok=True)


def sweep(out: str) -> None:
    """Drop what processes that were killed while they wrote have left. Stores of objects are left nothing."""
    if not is_url(out):
        for abandoned in Path(out).glob(".part-*.parquet.*.part"):
            abandoned.unlink(missing_ok=True)


def names_in(out: str) -> list[str]:
    """Of the parts that are there, whoever wrote them. Raises DataError."""
    if is_url(out):
        with reaching(out, "cannot be listed"):
            system, path = file_system(out)
            system.invalidate_cache(path)  # what others have written since
            try:
                found = system.ls(path, detail=False)
            except FileNotFoundError:
                return []
        return sorted(n for f in found if (n := f.rsplit("/", 1)[-1]).startswith("part-") and n.endswith(".parquet"))
    return sorted(file.name for file in Path(out).glob("part-*.parquet"))
