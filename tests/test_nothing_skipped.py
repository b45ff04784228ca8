"""A run with --gpu fails where there is none, and where any test was skipped for want of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.gpu
def test_marked():
    pytest.skip("whatever for")

def test_reason():
    pytest.skip("needs CuPy")

@pytest.mark.skipif(True, reason="needs g++ to compile CUDA as C++")
def test_condition(): ...

def test_import():
    pytest.importorskip("cupy.of.nowhere")

def test_something_else():
    pytest.importorskip("tensorboard_of_nowhere")

def test_passes(): ...
"""
CONFTEST = """
from nothing_skipped import NothingSkipped

def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs one")
    config.pluginmanager.register(NothingSkipped())
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={"PYTHONPATH": str(HERE)})


HERE = Path(__file__).parent


def test_what_was_skipped_for_want_of_a_gpu_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    done = run(cwd=tmp_path)
    assert done.returncode == 1
    named = [line.split("::")[1].split(":")[0] for line in done.stdout.splitlines() if line.startswith("--gpu")]
    assert named == ["test_marked", "test_reason", "test_condition", "test_import"]
    assert "1 passed, 5 skipped" in done.stdout
    assert run("-k", "passes or something_else", cwd=tmp_path).returncode == 0


def test_a_file_skipped_whole_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text("import pytest\npytest.importorskip('cupy.of.nowhere')\n")
    done = run(cwd=tmp_path)
    assert done.returncode == 1
    assert "--gpu: must not be skipped: test_some.py: " in done.stdout


def test_without_a_gpu_the_run_does_not_begin() -> None:
    """With CuPy hidden there is none, whatever the machine."""
    hide = "import sys; sys.modules['cupy'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", hide, "--gpu", "-q", "-p", "no:cacheprovider", str(HERE / "test_relu.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stdout == ""
    assert done.stderr.strip() == (
        "ERROR: --gpu: backend 'cupy' is unavailable: cupy is not installed (pip install 'cupy-cuda13x[ctk]')"
    )
