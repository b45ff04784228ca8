"""The floor plan: docs/rooms.md is what the imports are, no arrow points upwards; files and signatures stay small."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_LINES, MOST_PARAMETERS = 400, 12
WORKSHOPS = ("cpu", "gpu")  # of kernels/, rooms of their own
FACE = "alexnet_np"  # hands names on, each looked up when it is first used
BY_NAME = {  # who names modules in strings: the switch, the face, what hands on to an op's array version or its module
    "alexnet_np": "_LAZY",
    "alexnet_np.backend": "IMPLEMENTATIONS",
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for folder in ("alexnet_np", "kernels"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "alexnet_np" else ("alexnet_np", *parts)
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def room(module: str) -> str:
    _, first, *rest = module.split(".")
    return f"{first}/{rest[0]}" if first == "kernels" and rest and rest[0] in WORKSHOPS else first


@cache
def imports() -> dict[str, set[str]]:
    """Of each module those of the package that it imports, wherever in it."""
    known, found = modules(), {}
    for module, file in known.items():
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= {name if name in known else node.module for name in names}
        found[module] = {name for name in wanted if name in known and name not in (module, FACE)}
    return found


@cache
def arrows() -> dict[str, set[str]]:
    """Of each room those that it imports."""
    found: dict[str, set[str]] = {room(module): set() for module in modules() if module != FACE}
    for module, wanted in imports().items():
        if module != FACE:
            found[room(module)] |= {room(name) for name in wanted} - {room(module)}
    return found


@cache
def drawing() -> dict[str, set[str]]:
    """docs/rooms.md: rooms from the top down, and what an arrow leads to."""
    block = re.search(r"```\n(.*?)```", (ROOT / "docs" / "rooms.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    lines = (line.partition(" -> ") for line in block[1].splitlines() if line.strip())
    return {name.split()[0]: set(wanted.split()) for name, _, wanted in lines}


def test_the_drawing_is_what_the_imports_are() -> None:
    assert set(drawing()) == set(arrows())
    for name, wanted in arrows().items():
        assert drawing()[name] == wanted, f"docs/rooms.md: {name} -> {' '.join(sorted(wanted))}"


def test_no_arrow_points_upwards() -> None:
    floors = list(drawing())
    upward = [(a, b) for a, wanted in drawing().items() for b in wanted if floors.index(b) < floors.index(a)]
    assert upward == []


def test_no_circle() -> None:
    """Take away what imports nothing that is left, again and again: of a circle something stays."""
    left = {module: set(wanted) for module, wanted in imports().items() if module != FACE}
    while free := [module for module, wanted in left.items() if not wanted & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}


def test_a_circle_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = "alexnet_np.layer", "alexnet_np.fusion"
    assert one in imports()[other]
    imports.cache_clear()
    found = imports()
    monkeypatch.setitem(found, one, found[one] | {other})
    with pytest.raises(AssertionError):
        test_no_circle()
    imports.cache_clear()


def test_every_package_is_installed() -> None:
    (listed,) = re.findall(r"^PACKAGES = \[(.*?)\]", (ROOT / "setup.py").read_text(encoding="utf-8"), re.S | re.M)
    packages = {name for name, file in modules().items() if file.name == "__init__.py"}
    assert set(re.findall(r'"(.*?)"', listed)) - {"alexnet_np.benchmarks"} == packages


def sources() -> list[Path]:
    return [
        file for folder in ("alexnet_np", "kernels", "tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")
    ]


def test_files_fit_on_a_few_screens() -> None:
    long = {str(f.relative_to(ROOT)): n for f in sources() if (n := f.read_text("utf-8").count("\n")) > MOST_LINES}
    assert long == {}


def test_functions_take_few_arguments() -> None:
    """But for the command line's, whose parameters are its options; a block kernel is given two by the team."""
    many = []
    for file in sources():
        if (ROOT / "alexnet_np" / "cli") in file.parents:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                count = len(given.posonlyargs + given.args + given.kwonlyargs)
                if [getattr(each, "id", "") for each in node.decorator_list] == ["block_kernel"]:
                    count -= 2
                if count > MOST_PARAMETERS:
                    many.append((str(file.relative_to(ROOT)), node.name, count))
    assert many == []


def names_in_strings(code: str) -> set[str]:
    nodes = ast.walk(ast.parse(code))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in modules()}


def test_only_the_tables_name_modules_in_strings() -> None:
    """`importlib.import_module("alexnet_np.layers")` would be an import that no drawing shows."""
    naming = {m for m, file in modules().items() if names_in_strings(file.read_text("utf-8")) - {FACE, m}}
    assert naming - BY_NAME.keys() == set()
    for module, table in BY_NAME.items():
        assert f"\n{table} = {{" in modules()[module].read_text("utf-8")
    assert names_in_strings("import_module('alexnet_np.layers')") == {"alexnet_np.layers"}


def test_imports_say_where_from() -> None:
    """No relative ones, which `imports` would not read."""
    for module, file in modules().items():
        nodes = ast.walk(ast.parse(file.read_text("utf-8")))
        assert not [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level], module


def imported(file: Path) -> set[str]:
    """The dotted names in all import statements of a file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_face_is_for_those_above_everything() -> None:
    """It loads whatever it is asked for: who imports it imports all."""
    asking = {room(module) for module, file in modules().items() if module != FACE and asks_the_face(file)}
    assert asking <= {"cli", "measure"}


def asks_the_face(file: Path) -> bool:
    """Whether it imports the package itself, or a name of it that is no module."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import) and FACE in [alias.name for alias in node.names]:
            return True
        if isinstance(node, ast.ImportFrom) and node.module == FACE:
            names = {f"{FACE}.{alias.name}" for alias in node.names}
            if any(name not in modules() for name in names):
                return True
    return False


def test_nobody_imports_the_benchmarks_and_they_do_not_import_the_tests() -> None:
    for file in [*modules().values(), *(ROOT / "tests").rglob("*.py")]:
        assert not [name for name in imported(file) if "benchmarks" in name.split(".")], file
    tests = {file.stem for file in (ROOT / "tests").rglob("*.py")}
    for file in (ROOT / "benchmarks").rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(file)} & tests, file
        assert "sys.path" not in file.read_text("utf-8"), file
