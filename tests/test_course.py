"""The course's notebooks as files: stripped, in order, each with its exercises and its checks against torch.

They are run by `make test-course`, which .ci/run calls.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "course"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")


def test_they_are_numbered_and_in_the_table_of_contents():
    assert [path.name.split("_")[0] for path in NOTEBOOKS] == [str(n) for n in range(1, 9)]
    table = (FOLDER / "README.md").read_text("utf-8")
    assert re.findall(r"\]\((\d_\w+\.ipynb)\)", table) == [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_and_the_same_ids_every_time(path):
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None and not cell.metadata
    assert [cell.id for cell in notebook.cells] == [f"cell-{i:02d}" for i in range(1, len(notebook.cells) + 1)]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_ends_its_steps_in_checks_against_torch(path):
    said = code(path)
    assert "import torch\n" in said and len(re.findall(r"^ *assert ", said, re.MULTILINE)) >= 3
    assert read(path).cells[0].source.startswith(f"# {path.name[0]}. ")


def test_every_exercise_is_set_once_and_unsolved():
    asked = []
    for path in NOTEBOOKS:
        for cell in read(path).cells:
            for name in re.findall(r'^check\("(\w+)", ', cell.source, re.MULTILINE):
                asked.append(name)
                assert re.match(rf'def {name}\([\w, ]+\):\n    """.+"""\n    # your code\n', cell.source), name
    exercises = (FOLDER / "exercises.py").read_text("utf-8").partition("for cases in (")[2]
    assert asked and all(re.search(rf"\b{name}\b", exercises) for name in asked)
    assert len(asked) == len(set(asked)) == len(re.findall(r"\b[a-z]\w+,|\b[a-z]\w+\)", exercises))
