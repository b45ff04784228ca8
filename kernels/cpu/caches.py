"""How much the processor's caches hold: what blocks that are to stay in them are cut by.

Asked of Linux (/sys/devices/system/cpu/cpu0/cache, which has it from CPUID). Where it does not say, of the processor
that the sizes in choices.py were measured on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Caches(NamedTuple):
    """Bytes."""

    core: int  # the second level, or what stands for it: a core's own
    shared: int  # the last level


MEASURED = Caches(1 << 20, 32 << 20)  # EPYC Zen 4


def find(folder: Path = SYSFS) -> Caches:
    levels: dict[int, int] = {}
    for index in folder.glob("index*"):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except (OSError, ValueError):
            continue
        found = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind != "Instruction" and level.isdigit() and found and int(found[1]):
            levels[int(level)] = int(found[1]) * UNITS[found[2]]
    if 2 not in levels:
        return MEASURED
    return Caches(levels[2], levels[max(levels)])


def scaled(size: int, have: int, measured: int, least: int, most: int) -> int:
    """`size`, which is right where a cache holds `measured` bytes, for one that holds `have`; from least to most."""
    return min(max(size * have // measured, least), most)
