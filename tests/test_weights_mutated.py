"""Damaged files of every format: each is read or refused, soon and in little memory, and no process dies of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("resource")

from mutated_weights import WRITERS  # noqa: E402


def run(count: int, seed: int, *kinds: str) -> None:
    command = [sys.executable, Path(__file__).parent / "mutated_weights.py", str(count), str(seed), *kinds]
    done = subprocess.run(command, capture_output=True, text=True)
    results = dict(zip(kinds, map(json.loads, done.stdout.splitlines()), strict=False))
    assert done.returncode == 0, (results, done.stderr[-2000:])  # negative: the signal that it died of
    for kind, found in results.items():
        assert not found["wrong"], (kind, found)
        assert found["read"] + found["refused"] == count and found["refused"] > count / 10, (kind, found)


def test_some_hundred_damaged_files():
    run(120, 0, *WRITERS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_ten_thousand_damaged_files(kind):
    run(10_000, 1000, kind)
