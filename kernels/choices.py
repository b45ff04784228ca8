"""Who computes what, and in blocks of what size: one table for eager and plan, for CPU and GPU, read from the top.

A row fits the problems (problems.py) whose named quantities are equal or in range, and says an algorithm, sizes, or
both. Each is taken from the first row that fits and says it; a row whose algorithm cannot compute the problem (LIMITS)
is passed over. Rows given to `overriding` come first, then those measured on this machine (`use_measured`), then TABLE.

    with choices.overriding(Row("direct", kernel=5)): plan = anp.compile(model)
    print(choices.show())

The register tile of the CPU's products goes with its vector unit: MACHINES in cpu/simd.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_np.errors import BackendError
from alexnet_np.kernels import tuning
from alexnet_np.kernels.conv2d_winograd_transforms import FAMILIES, multiplications
from alexnet_np.kernels.cpu import caches
from alexnet_np.kernels.problems import AS_IT_IS, DENSE, FILLED, LIMITS, MANY, STRIDES, Problem, can, formed
from alexnet_np.kernels.rows import Row, facts_of, rows_of

__all__ = ["TABLE", "Choice", "NoWay", "Row", "choose", "insisting", "overriding", "show", "sizes", "ways"]

_HERE = caches.find()


def _of_core(size: int, least: int, most: int) -> int:
    return caches.scaled(size, _HERE.core, caches.MEASURED.core, least, most)


def _of_shared(size: int, least: int, most: int) -> int:
    return caches.scaled(size, _HERE.shared, caches.MEASURED.shared, least, most)


# Sizes go with the machine's caches where no sum's order does: the bits are the same everywhere.
# Measured, unless said otherwise, on 2 cores of an EPYC Zen 4 at batch 32; convolutions in direct-equivalent GFLOP/s.
TABLE = (
    # conv2d: what it is computed as
    Row(
        form=DENSE,
        planned=True,
        groups=(2, MANY),
        full_unfolded=(0, 0.99),
        why="packed once; Winograd takes whole vectors",
    ),
    Row(form=FILLED, planned=True, groups=1, full=(0, 0.99), why="a plan's buffers have room for a whole vector"),
    Row(
        form=FILLED,
        groups=1,
        stride=(STRIDES[0], STRIDES[-1]),
        full=(0.51, 0.99),
        dtype="float32",
        why="a vector more than half full; below that what wastes no lanes is as fast and rounds less",
    ),
    # and by what
    Row("winograd", kernel=3, stride=1, tiles=(5, 6, 4), why="540-580 at 13x13; the direct kernel does 185-215"),
    Row("winograd", kernel=5, stride=1, tiles=(4, 3), why="27 = 7*4 - 1: a fifth less than F(3,5), which did 800"),
    Row(
        "winograd", kernel=11, stride=4, tiles=(5, 6, 4), why="by space to depth 3x3 and stride 1: 560, direct 136-159"
    ),
    Row("direct", direction="forward", why="185-215, its arithmetic peak being 235"),
    Row("im2col", why="any dtype and shape; 145-165"),
    Row(column_bytes=2 << 20, why="a block's columns stay in its thread's cache"),
    Row(
        block_tiles=_of_core(32, 24, 96),
        why="V and products in a thread's cache: 32 at 1 MB; 3% of a plan, conv 2 5%, beside 60 tiles",
    ),
    Row(gradient_tiles=400, direction="backward", kernel=3, why="4% of a training step beside 192: dU is read less"),
    Row(gradient_tiles=100, direction="backward", kernel=5, why="2% of a step beside 192: V and S of 64 points"),
    Row(gradient_tiles=192, direction="backward", why="242 ms of products a step of AlexNet, 210 at the peak"),
    # how much of a batch goes through several layers at a time
    Row(
        op="stages",
        planned=True,
        training=False,
        stage_bytes=_of_shared(12 << 20, 3 << 20, 24 << 20),
        chunk_bytes=_of_shared(6 << 20, 3 << 19, 12 << 20),
        why="what is written is read again from the shared cache: 12 MB and 6 at 32 MB",
    ),
    Row(
        op="stages",
        stage_bytes=12 << 20,
        why="what is written is read again from the shared cache: a training step 1.45 s, whole batches 1.84 s",
    ),
    # linear
    Row("packed", op="linear", planned=True, why="38 GB/s at batch 1, 200 GFLOP/s at 32, 225 at 128"),
    Row(
        "arrays",
        op="linear",
        batch=(0, 1),
        why="BLAS reads the matrix of one product with a vector as fast as memory can",
    ),
    Row("panels", op="linear", why="weights that change are packed slice by slice: batch 16 5.9 ms, NumPy 20"),
    Row("arrays", op="linear", why="what the panels do not take"),
    Row(
        op="linear",
        planned=True,
        heights=(0, 2),
        block_k=MANY,
        why="x stays in the cache anyway; each panel is read once",
    ),
    Row(op="linear", planned=True, block_k=1024, why="128 KB of a panel: 5% of fc 6 and 7 at batch 128 beside 256"),
    Row(op="linear", block_k=256, why="a slice of x and of a panel stay in the second-level cache"),
    Row(op="linear", block_panels=8, why="so rows of the weight are read in runs of 1 KB"),
    # the others
    Row("nhwc", op="max_pool2d", why="0.05 ms an image of 64x55x55, backward 0.09"),
    Row("nchw", op="max_pool2d", why="any dtype, window and layout; 5 times the array version"),
    Row("nhwc", op="avg_pool2d", why="as max_pool2d, whose windows are walked alike"),
    Row("nchw", op="avg_pool2d", why="any dtype, window and layout"),
    Row("nhwc", op="local_response_norm", why="0.24 ms an image of 64x55x55, backward 0.27; by planes 0.75 and 0.82"),
    Row("nchw", op="local_response_norm", why="any dtype and layout"),
    Row(op="local_response_norm", positions=128, why="a block's channels stay in the cache while the window passes"),
    Row(op="relu", chunk=1 << 16, why="256 KB: long beside the cost of a task, short beside a layer"),
    Row(op="sgd", chunk=1 << 16, why="as relu"),
    Row(op="dropout", chunk=1 << 12, why="as relu, in blocks of four"),
    # The GPU: nothing of it has been measured. Where two ways are likely, the one that was there first is asked for.
    Row("im2col", device="gpu", why="not measured: cuBLAS, and the tensor cores where they are allowed"),
    Row(device="gpu", column_bytes=32 << 20, why="not measured: as the array operations"),
    Row(device="gpu", blocks=(264, MANY), tile=128, why="not measured: two blocks for each of 132 multiprocessors"),
    Row(device="gpu", tile=64, why="not measured: more and smaller blocks fill the GPU"),
    Row(
        "rows",
        op="linear",
        device="gpu",
        planned=True,
        direction="forward",
        batch=(0, 4),
        why="not measured: so few rows are no product: reading the weights once is all the work",
    ),
    Row("cublas", op="linear", device="gpu", why="not measured: a product's tiles share the reading"),
    Row(op="linear", device="gpu", images=4, why="not measured: their sums stay in registers"),
    Row("registers", op="local_response_norm", device="gpu", run=16, why="not measured: each value is read once"),
    Row("naive", op="local_response_norm", device="gpu", why="windows that registers cannot hold"),
    Row("strict", op="gemm", device="gpu", why="as exact as PyTorch's float32; tf32 only where it is asked for"),
)


class Choice(NamedTuple):
    algorithm: str  # "" where the op has one way
    m: int = 0  # Winograd: F(m, r)
    r: int = 0
    form: str = AS_IT_IS
    sizes: Mapping[str, int] = {}

    def __str__(self) -> str:
        return f"winograd F({self.m},{self.r})" if self.algorithm == "winograd" else self.algorithm


_overrides: ContextVar[tuple[Row, ...]] = ContextVar("alexnet_np_choices", default=())
_insisted: ContextVar[Row | None] = ContextVar("alexnet_np_insisted", default=None)
_measured: tuple[Row, ...] | None = None  # None: as kernels/tuning.py has kept them for the machine
_kept: dict[str, tuple[Row, ...]] = {}  # by the machine


class NoWay(BackendError):
    """A way that was insisted on cannot compute a problem."""


@contextmanager
def overriding(*rows: Row) -> Iterator[None]:
    """Inside the `with`, `rows` come before all others."""
    token = _overrides.set(rows + _overrides.get())
    try:
        yield
    finally:
        _overrides.reset(token)


def in_force() -> tuple[Row, ...]:
    """The rows that `overriding` has put before all others."""
    return _overrides.get()


@contextmanager
def insisting(row: Row) -> Iterator[None]:
    """Inside the `with`, `row` comes first and `choose` raises NoWay where its op goes another way."""
    token = _insisted.set(row)
    try:
        with overriding(row):
            yield
    finally:
        _insisted.reset(token)


def use_measured(rows: Iterable[Row]) -> None:
    """From now on `rows`, measured on this machine, come before TABLE."""
    global _measured
    _measured = tuple(rows)


def measured(device: str) -> tuple[Row, ...]:
    """The rows that were measured on this machine, which come before TABLE. Raises DataError where they are corrupt."""
    if _measured is not None:
        return _measured
    machine = tuning.machine(device)
    if machine not in _kept:
        _kept[machine] = tuple(_rows_of_machine(machine))
    return _kept[machine]


def rows_here() -> list[Row]:
    """What is kept for this machine's CPU, with as many threads, and its GPU. Raises DataError where it is corrupt."""
    return [row for device in tuning.DEVICES for row in _rows_of_machine(tuning.machine(device))]


def _rows_of_machine(machine: str) -> list[Row]:
    return rows_of(tuning.kept().get(machine, []), tuning.file()) if machine else []


def keep(rows: Iterable[Row]) -> None:
    """From now on, and in later processes, `rows` and no others come before TABLE on this machine."""
    made, tables = list(rows), tuning.kept()
    for device in tuning.DEVICES:
        if machine := tuning.machine(device):
            tables[machine] = [row.as_dict() for row in made if row.device == device]
    tuning.write(tables, tuning.file())
    use_measured(made)


def take(path: Path) -> list[str]:
    """Import the tables of a file, and say of which machines they are. Raises DataError."""
    tables = tuning.read(path)
    for table in tables.values():
        rows_of(table, path)
    tuning.write(tuning.kept() | tables, tuning.file())
    use_measured(rows_here())
    return list(tables)


def drop() -> bool:
    """Forget all that was measured, on every machine; whether there was anything."""
    use_measured([])
    return tuning.drop()


def choose(problem: Problem) -> Choice:
    """What the table says of `problem`. Raises BackendError where no row that fits can compute it."""
    choice, insisted = _choose(problem, _overrides.get() + measured(problem.device)), _insisted.get()
    concerned = insisted is not None and (insisted.op, insisted.device) == (problem.op, problem.device)
    if insisted is not None and concerned and not _same(choice, insisted):
        raise NoWay(f"{insisted.algorithm} does not compute this {problem.op}'s {problem.direction}")
    return choice


def sizes(op: str, device: str = "cpu", **facts: Any) -> Mapping[str, int]:
    """Those of an op whose sizes depend on nothing, or on few `facts`."""
    return choose(Problem(op, device, **facts)).sizes


@lru_cache(4096)
def _choose(problem: Problem, first: tuple[Row, ...]) -> Choice:
    rows = (*first, *TABLE)
    form = _form(problem, rows)
    problem = formed(problem, form)
    fitting = [row for row in rows if row.fits(problem)]
    able = [way for row in fitting if (way := _way(row, problem))]
    if not able and any(row.algorithm for row in fitting):
        raise BackendError(f"choices: no row of the table can compute {problem}")
    algorithm, m, r = able[0] if able else ("", 0, 0)
    said: dict[str, int] = {}
    for row in reversed(fitting):
        if row.algorithm in (None, algorithm):
            said |= {name: value for name, value in row.says.items() if name not in ("form", "tiles")}
    return Choice(algorithm, m, r, AS_IT_IS if algorithm == "im2col" else form, said)


def _form(problem: Problem, rows: Iterable[Row]) -> str:
    return next((row.says["form"] for row in rows if "form" in row.says and row.fits(problem)), AS_IT_IS)


def _way(row: Row, problem: Problem) -> tuple[str, int, int] | None:
    """(algorithm, m, r) if the row names an algorithm that can compute the problem."""
    if row.algorithm is None or not can(row.algorithm, problem):
        return None
    if row.algorithm != "winograd":
        return row.algorithm, 0, 0
    r = -(-problem.kernel // problem.stride)
    tiles = [m for m in row.says.get("tiles", ()) if (m, r) in FAMILIES]
    return (row.algorithm, min(tiles, key=lambda m: (multiplications(problem.output, m, r), m)), r) if tiles else None


def ways(problem: Problem) -> list[Choice]:
    """Every way that can compute `problem`, Winograd's with every tile, each with the sizes it would run with."""
    named = [Row(name, problem.op, problem.device) for name in LIMITS.get((problem.op, problem.device), {})]
    rows = [row for row in named if row.algorithm != "winograd"]
    if len(rows) < len(named):
        tiles = sorted({m for m, _ in FAMILIES})
        rows += [Row("winograd", problem.op, problem.device, tiles=(m,)) for m in tiles]
    first = _overrides.get() + measured(problem.device)
    chosen = [(row, _choose(problem, (row, *first))) for row in rows]
    return [choice for row, choice in chosen if _same(choice, row)]


def row_of(choice: Choice, problem: Problem) -> Row:
    """The row that says this choice's algorithm of this problem: to run it so, or to keep that it was the fastest."""
    tiles: dict[str, Any] = {"tiles": (choice.m,)} if choice.m else {}
    return Row(choice.algorithm, problem.op, problem.device, **conditions(problem), **tiles)


def conditions(problem: Problem) -> dict[str, Any]:
    """What fits `problem`, in the form that it is computed in, and no other: for a row that was measured."""
    return formed(problem, _form(problem, (*_overrides.get(), *measured(problem.device), *TABLE))).conditions()


def _same(choice: Choice, row: Row) -> bool:
    return choice.algorithm == row.algorithm and row.says.get("tiles", (choice.m,)) == (choice.m,)


def _all_measured() -> list[Row]:
    return list(dict.fromkeys(row for device in tuning.DEVICES for row in measured(device)))


def show() -> str:
    """Every row in the order in which it is asked: what it fits, what it says, where it comes from, and why."""
    lines = [("op", "device", "where", "choice", "from", "why")]
    for source, rows in (("override", _overrides.get()), ("measured", _all_measured()), ("shipped", TABLE)):
        for row in rows:
            says = [row.algorithm] if row.algorithm else []
            lines.append(
                (
                    row.op,
                    row.device,
                    facts_of(row.where),
                    ", ".join([*says, *filter(None, [facts_of(row.says)])]),
                    source,
                    row.why,
                )
            )
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join(
        "  ".join([*(f"{text:<{n}}" for text, n in zip(line, widths, strict=False)), line[5]]) for line in lines
    )
