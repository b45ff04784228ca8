"""Numbers, flags and names as a caller gives them: read here for every public function, or refused in one line.

    where     the function, as its caller knows it: "max_pool2d"
    what      the argument: "stride"

Python's and NumPy's numbers count alike. A bool is no number, and a text never is: "3" is refused, not converted.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from alexnet_np.errors import ArgumentError

MOST = 2**31 - 1  # of any size, stride or count: what the kernels' 32-bit numbers hold
SEEDS = 2**64 - 1
DIMENSIONS = 32  # of any array: what NumPy before 2.0 takes


def shown(value: Any) -> str:
    """`value` in a message: one line, not longer than a glance."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # somebody's repr is not our argument's fault
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:50]}... ({type(value).__name__})"


def integer(where: str, what: str, value: Any, least: int | None = None, most: int = MOST) -> int:
    """An int, of Python's or NumPy's, from `least` to `most`. Raises ArgumentError."""
    number = _index(value)
    if number is None:
        raise ArgumentError(f"{where}: {what} must be an int, got {shown(value)}{_whole(value)}")
    if least is not None and number < least:
        raise ArgumentError(f"{where}: {what} must be at least {least}, got {number}")
    if number > most or number < -most - 1:
        raise ArgumentError(f"{where}: {what} must be at most {most}, got {shown(number)}")
    return number


def seed(where: str, value: Any, least: int = 0) -> int:
    """An int of 64 bits. Raises ArgumentError."""
    return integer(where, "seed", value, least, SEEDS)


def pair(where: str, what: str, value: Any, least: int) -> tuple[int, int]:
    """An int or a pair of ints, each at least `least`, as (for the height, for the width). Raises ArgumentError."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    numbers = [_index(number) for number in (values * 2 if len(values) == 1 else values)]
    if len(numbers) != 2 or None in numbers:
        raise ArgumentError(f"{where}: {what} must be an int or a pair of ints, got {shown(value)}")
    height, width = (number for number in numbers if number is not None)
    if min(height, width) < least:
        raise ArgumentError(f"{where}: {what} must be at least {least}, got {shown(value)}")
    if max(height, width) > MOST:
        raise ArgumentError(f"{where}: {what} must be at most {MOST}, got {shown(value)}")
    return height, width


def shape(where: str, what: str, value: Any) -> tuple[int, ...]:
    """The sizes of an array, each at least 0, as a tuple. Raises ArgumentError."""
    sides = items(where, what, value, "a shape such as (N,C,H,W)")
    sizes = tuple(integer(where, what, side, 0) for side in sides)
    if len(sizes) > DIMENSIONS or math.prod(sizes) >= 2**60:
        raise ArgumentError(f"{where}: {what} is of no array that there could be, got {shown(value)}; ask for less")
    return sizes


def room(where: str, what: str, shape: Iterable[int], itemsize: int = 4) -> None:
    """Raises ArgumentError where an array of `shape` would not fit into this machine's memory."""
    size = math.prod(shape) * itemsize
    if size > memory():
        raise ArgumentError(
            f"{where}: {what} would take {size:,} bytes, and this machine has {memory():,}; ask for less"
        )


@cache
def memory() -> int:
    """This machine's memory in bytes; 1 TiB where nobody says."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no POSIX
        return 1 << 40


def number(where: str, what: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number from `least` to `most`. Raises ArgumentError."""
    real = _real(value)
    if real is not None and math.isfinite(real) and least <= real <= most:
        return real
    kind = "a finite number" if least == -math.inf else f"a number of at least {least:g}"
    bounds = kind if most == math.inf else f"between {least:g} and {most:g}"
    hint = "; write it without quotes" if isinstance(value, str) and any(map(str.isdigit, value)) else ""
    raise ArgumentError(f"{where}: {what} must be {bounds}, got {shown(value)}{hint}")


def above(where: str, what: str, value: Any, bound: float = 0) -> float:
    """A finite number greater than `bound`. Raises ArgumentError."""
    real = number(where, what, value)
    if real <= bound:
        raise ArgumentError(f"{where}: {what} must be {'positive' if bound == 0 else f'above {bound:g}'}, got {real}")
    return real


def flag(where: str, what: str, value: Any) -> bool:
    """True or False, of Python's or NumPy's. Raises ArgumentError."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise ArgumentError(f"{where}: {what} must be True or False, got {shown(value)}")


def choice(where: str, what: str, value: Any, choices: Iterable[str]) -> str:
    """One of the names in `choices`. Raises ArgumentError naming them."""
    names = list(choices)
    if isinstance(value, str) and value in names:
        return value
    raise ArgumentError(f"{where}: unknown {what} {shown(value)}: choose one of {', '.join(names)}")


def text(where: str, what: str, value: Any) -> str:
    """A str. Raises ArgumentError."""
    if isinstance(value, str):
        return value
    raise ArgumentError(f"{where}: {what} must be a str, got {shown(value)}")


def path(where: str, what: str, value: Any) -> Path:
    """The path of a file or a folder. Raises ArgumentError."""
    if isinstance(value, str | os.PathLike) and "\0" not in os.fspath(value):
        return Path(value)
    raise ArgumentError(f"{where}: {what} must be a path, got {shown(value)}")


def function(where: str, what: str, value: Any) -> Callable[..., Any]:
    """Something that can be called. Raises ArgumentError."""
    if callable(value):
        return value
    raise ArgumentError(f"{where}: {what} must be a function, got {shown(value)}")


def instance(where: str, what: str, value: Any, kind: type | tuple[type, ...], called: str) -> Any:
    """`value` if it is a `kind`, which users know as what is `called` so. Raises ArgumentError."""
    if isinstance(value, kind):
        return value
    raise ArgumentError(f"{where}: {what} must be {called}, got {shown(value)}")


def mapping(where: str, what: str, value: Any, called: str) -> Mapping[Any, Any]:
    """A mapping, such as what is `called` so. Raises ArgumentError."""
    return instance(where, what, value, Mapping, called)


def items(where: str, what: str, value: Any, called: str) -> list[Any]:
    """What is in something that can be gone through, and is no text. Raises ArgumentError."""
    if not isinstance(value, str | bytes):
        with suppress(TypeError):  # nothing to go through, as an array of no axes
            return list(value)
    raise ArgumentError(f"{where}: {what} must be {called}, got {shown(value)}")


def _index(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _real(value: Any) -> float | None:
    if isinstance(value, bool | str | bytes | complex) or not hasattr(value, "__float__"):
        return None
    if getattr(value, "ndim", 0):  # an array is no number, not even of one element
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _whole(value: Any) -> str:
    """The hint where a number was meant as an int: 10.0."""
    real = _real(value)
    return f"; write {int(real)}" if real is not None and real.is_integer() else ""
