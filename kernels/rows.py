"""One line of the table of choices.py: what it fits, and what it says of that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_np.errors import ArgumentError, DataError, one_line
from alexnet_np.kernels.problems import LIMITS, MANY, QUANTITIES, Problem, meets

SIZES = {  # what a row may say beside the algorithm
    "form": "what a convolution is computed as (problems.py)",
    "tiles": "Winograd: the output tile sizes m to consider; the least multiplications win, then the smallest",
    "block_tiles": "Winograd tiles that one thread takes through all three steps",
    "gradient_tiles": "Winograd tiles whose V and S are held at once for the gradient of the weights",
    "stage_bytes": "of the largest array between two poolings, for the images that are in work at a time",
    "chunk_bytes": "of the largest array that leaves a pooling, for the images that pass all poolings at a time",
    "column_bytes": "of im2col's columns at a time: a thread's on the CPU, a slice of the batch's on the GPU",
    "block_k": "terms of a product's sums in work at a time",
    "run": "channels that a GPU's thread walks",
    "block_panels": "panels of a weight packed at a time where their rows lie far apart",
    "chunk": "floats of a task (dropout: Philox blocks of four)",
    "positions": "pixels of a task of local response normalisation",
    "images": "images that a row of weights serves at a time",
    "tile": "outputs along either side of a GPU block's tile",
}


class Row:
    """One line of the table. `facts`: QUANTITIES that say what it fits, and SIZES, which are what it says."""

    def __init__(
        self, algorithm: str | None = None, op: str = "conv2d", device: str = "cpu", why: str = "", **facts: Any
    ) -> None:
        self.algorithm, self.op, self.device, self.why = algorithm, op, device, why
        facts = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
        self.where = {name: value for name, value in facts.items() if name in QUANTITIES}
        self.says = {name: value for name, value in facts.items() if name in SIZES}
        if unknown := sorted(facts.keys() - self.where.keys() - self.says.keys()):
            known = ", ".join(sorted(QUANTITIES | SIZES.keys()))
            raise ArgumentError(f"choices: a row knows no {', '.join(unknown)}; it knows {known}")
        ways = LIMITS.get((op, device), {})
        if algorithm is not None and algorithm not in ways:
            raise ArgumentError(
                f"choices: {op} on the {device} has no way {algorithm!r}, only {', '.join(ways) or 'one'}"
            )

    def fits(self, problem: Problem) -> bool:
        return (self.op, self.device) == (problem.op, problem.device) and meets(problem, self.where)

    def as_dict(self) -> dict[str, Any]:
        """Row(**row.as_dict()) is the same row, also by way of JSON."""
        named = {"algorithm": self.algorithm, "op": self.op, "device": self.device, "why": self.why}
        return named | self.where | self.says


def rows_of(table: list[dict[str, Any]], path: Path) -> list[Row]:
    """A table of a file as rows. Raises DataError for one that no row can be made of."""
    try:
        rows = [Row(**row) for row in table]
        for row in rows:
            for value in (*row.where.values(), *row.says.values()):
                numbers = value if isinstance(value, tuple) else (value,)
                if not all(isinstance(v, str | int | float) for v in numbers) or (row.where and numbers == ()):
                    raise ArgumentError(f"choices: a row holds {value!r}")
        return rows
    except (ArgumentError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: a row is none: {one_line(error)}; alexnet tune --drop removes ours") from error


def facts_of(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {readable(name, value)}" for name, value in facts.items())


def readable(name: str, value: Any) -> str:
    if not isinstance(value, tuple):
        return "all" if value == MANY else str(value)
    if name == "tiles":
        return " or ".join(map(str, value))
    return f"{value[0]}+" if value[1] == MANY else f"{value[0]} to {value[1]}"
