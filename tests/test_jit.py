"""How kernels are compiled, kept on the disk, and run where compiling, keeping or threads are not to be had."""

import ast
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import alexnet_np
from alexnet_np.kernels.cpu import code_cache

PACKAGE = Path(alexnet_np.__file__).parent

RELU = """
import numpy as np, alexnet_np as anp
def relu(backend="numba"):
    with anp.use_backend(backend):
        return float(anp.ops.relu.forward(np.arange(-64, 64, dtype="f").reshape(1, 2, 8, 8))[0].sum())
"""
COMPILING = "alexnet-np: compiling kernels for this machine, once\n"
RIGHT = "2016.0\n"


def environment(cache, **variables):
    """No home, and no cache but this one."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_", "PYTHONPATH"))}
    given = {"NUMBA_CACHE_DIR": str(cache)} if cache else {}
    return {**kept, "HOME": "/proc/none", "PYTHONDONTWRITEBYTECODE": "1", **given, **variables}


def run(cache, code="print(relu())", before="", **variables):
    """Standard output, and standard error, of a process of its own."""
    command = [sys.executable, "-c", before + RELU + code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd="/", env=environment(cache, **variables)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache with the kernel in it."""
    folder = tmp_path_factory.mktemp("kernels")
    assert run(folder) == (RIGHT, COMPILING)
    return folder


@pytest.fixture
def cache(warm, tmp_path):
    """The same, to spoil."""
    return shutil.copytree(warm, tmp_path / "cache")


def test_the_next_process_compiles_nothing(warm):
    assert run(warm, "print(relu()); import sys; assert 'rich' not in sys.modules") == (RIGHT, "")


def copy_of_the_package(place):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, place / "alexnet_np", ignore=ignored)
    if not (place / "alexnet_np" / "kernels").exists():  # as in a checkout
        shutil.copytree(code_cache.KERNELS, place / "alexnet_np" / "kernels", ignore=ignored)
    return place / "alexnet_np"


def test_a_fresh_checkout_compiles_nothing_and_an_edit_everything(cache, tmp_path):
    copied = copy_of_the_package(tmp_path / "checkout")
    for file in copied.rglob("*.py"):
        os.utime(file, (1, 1))
    where = "print(relu()); print(anp.__file__)"
    here = f"{RIGHT}{copied / '__init__.py'}\n"
    assert run(cache, where, PYTHONPATH=str(tmp_path / "checkout")) == (here, "")
    assert not [file for file in copied.rglob("*") if file.suffix in (".kernel", ".o", ".nbi", ".nbc")]
    with (copied / "kernels" / "cpu" / "simd.py").open("a") as file:
        file.write("# edited\n")
    assert run(cache, where, PYTHONPATH=str(tmp_path / "checkout")) == (here, COMPILING)


def test_the_stamp_covers_what_constants_are_imported_from():
    covered = {file.resolve() for file in code_cache.sources()}
    assert {"simd.py", "gemm_numba.py", "random.py"} <= {file.name for file in covered}
    for file in covered:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alexnet_np."):
                path = node.module.removeprefix("alexnet_np.").replace(".", "/")
                if any(name.name.isupper() for name in node.names) and not path.startswith("kernels/"):
                    assert (PACKAGE / f"{path}.py").resolve() in covered, f"{file.name}: constants of {node.module}"


def test_the_stamp_is_of_contents(tmp_path, monkeypatch):
    copied = copy_of_the_package(tmp_path)
    monkeypatch.setattr(code_cache, "KERNELS", copied / "kernels")
    stamp = code_cache.stamp.__wrapped__
    before = stamp()
    assert before == code_cache.stamp()
    (copied / "kernels" / "relu_cuda.py").write_text("")  # no part of what is compiled for the CPU
    assert stamp() == before
    (copied / "kernels" / "cpu" / "image.py").write_text("")
    assert stamp() != before


def test_two_processes_compile_into_one_cache_at_once(tmp_path):
    command = [sys.executable, "-c", RELU + "print(relu())"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path))
        for _ in range(2)
    ]
    for process in both:
        assert process.communicate(timeout=300) == (RIGHT, COMPILING)
    assert run(tmp_path) == (RIGHT, "")
    assert not [file for file in tmp_path.rglob("*") if file.suffix == ".part"]


@pytest.mark.parametrize("damage", [pytest.param(b"", marks=pytest.mark.slow), b"\x80\x04nonsense"])
def test_a_damaged_file_is_compiled_again(cache, damage):
    for kernel in cache.rglob("*.kernel"):
        kernel.write_bytes(damage)
    assert run(cache) == (RIGHT, COMPILING)
    assert run(cache) == (RIGHT, "")


GONE = {
    "a function": "import numba\ndel numba.core.runtime.rtsys\n",
    "a module": "import sys, numba.core.event\ndel numba.core.event\nsys.modules['numba.core.event'] = None\n",
    "an attribute": """
import numba
njit = numba.njit
class Other:
    def __init__(self, dispatcher): pass
def bare(*function, **options):
    ours = not function and "cache" not in options and "error_model" in options
    return (lambda f: Other(njit(**options)(f))) if ours else njit(*function, **options)
numba.njit = bare
""",
}


@pytest.mark.parametrize("gone", ["a function", *(pytest.param(gone, marks=pytest.mark.slow) for gone in [*GONE][1:])])
def test_numbas_own_cache_serves_where_its_internals_are_gone(tmp_path, gone):
    hits = "; from alexnet_np.kernels import relu_numba as r; print(sum(r.rectify._write.stats.cache_hits.values()))"
    notice = "alexnet-np: Numba .* is not built as expected .*; its own cache serves the kernels, .*\n"
    first, said = run(tmp_path, "print(relu())" + hits, GONE[gone])
    assert first == f"{RIGHT}0\n" and re.fullmatch(notice + COMPILING, said)
    again, said = run(tmp_path, "print(relu())" + hits, GONE[gone])
    assert again == f"{RIGHT}1\n" and re.fullmatch(notice, said)
    assert {file.parent.parent.name for file in tmp_path.rglob("*.nbi")} == {code_cache.stamp()}


def test_no_other_file_takes_numbas_private_names():
    private = re.compile(r"numba\.(core|np|misc|cpython)\b|\b_cache\b.*=.*KernelCache|\bgetrefcount\b")
    files = [*PACKAGE.rglob("*.py"), *code_cache.KERNELS.rglob("*.py")]
    assert len(files) > 100
    assert {file.name for file in files if private.search(file.read_text())} == {"numba_internals.py"}


def test_without_a_home_kernels_are_kept_among_temporary_files(tmp_path):
    said = (
        f"alexnet-np: compiling kernels, which last as long as {tmp_path}/alexnet-np-kernels-{os.getuid()}; "
        "NUMBA_CACHE_DIR names a folder to keep them in\n"
    )
    assert run(None, TMPDIR=str(tmp_path)) == (RIGHT, said)
    assert run(None, TMPDIR=str(tmp_path)) == (RIGHT, "")


def test_code_of_others_is_not_run(tmp_path):
    """A folder for temporary files is everybody's: one that others can write into might hold anything."""
    theirs = tmp_path / f"alexnet-np-kernels-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    said = "compiling kernels, which every process does anew; NUMBA_CACHE_DIR names a folder to keep them in"
    assert run(None, TMPDIR=str(tmp_path)) == (RIGHT, f"alexnet-np: {said}\n")
    assert not list(theirs.iterdir())


def test_old_folders_give_way(tmp_path):
    for age in range(20):
        folder = tmp_path / f"{age:016}"
        folder.mkdir()
        os.utime(folder, (1000 - age, 1000 - age))
    assert code_cache._can_write(tmp_path / "new")
    kept = {folder.name for folder in tmp_path.iterdir()}
    assert kept == {"new", *(f"{age:016}" for age in range(code_cache.GENERATIONS))}


def test_without_compiling_there_are_no_kernels_and_it_is_said(tmp_path):
    code = """
print(anp.available_backends()["numba"])
for call in (relu, lambda: anp.alexnet(backend="numba"), lambda: anp.compile(anp.alexnet(width=1 / 16, seed=0))):
    try: call()
    except anp.AlexNetError as error: print(error)
print(relu("numpy"))
"""
    reason, *errors, right = run(tmp_path, code, NUMBA_DISABLE_JIT="1")[0].splitlines()
    assert "cannot run with NUMBA_DISABLE_JIT; unset it, or step through the numpy backend" in reason
    assert len(errors) == 3 and all(reason in error for error in errors)
    assert right == RIGHT.strip()


FORK = """
import multiprocessing, sys
def child(): assert work() == before
def fork():
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(250)
    print(process.exitcode)
"""


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_child_forked_after_use_computes(warm, backend):
    code = f"{FORK}\nwork = lambda: relu({backend!r})\nbefore = work()\nfork(); assert work() == before"
    assert run(warm, code) == ("0\n", "")


@pytest.mark.slow
def test_a_plan_and_a_network_run_in_a_child_forked_after_use():
    code = f"""{FORK}
net = anp.alexnet(width=1 / 16, num_classes=5, seed=0, backend="numba").eval()
x = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype="f")
for run in (net, anp.compile(net, max_batch=2, size=64)):
    work = lambda: [round(float(y), 4) for y in run(x).ravel()]
    before = work()
    fork()
"""
    assert run(code_cache.folder()[0].parent.parent, code)[0] == "0\n0\n"


def test_a_lock_held_at_the_fork_is_open_in_the_child(warm):
    code = (
        FORK
        + """
import threading
from alexnet_np import threads
turn, work, before = threads.Turn(), lambda: turn.__enter__(), None
held = threading.Event()
def hold():
    with turn: held.set(); threading.Event().wait(30)
threading.Thread(target=hold, daemon=True).start()
held.wait()
fork()
"""
    )
    assert run(warm, code)[0] == "0\n"


def on_a_terminal(cache, code):
    """What a terminal of 80 columns was sent."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", RELU + code]
    variables = environment(cache, TERM="xterm", COLUMNS="80")
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=variables)
    os.close(theirs)
    sent = b""
    with pytest.raises(OSError):  # at the end
        while True:
            sent += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(60) == 0, sent
    return sent.decode()


def test_a_terminal_shows_one_line_while_it_lasts(tmp_path):
    sent = on_a_terminal(tmp_path, "y = relu(); print('result', y)")
    assert "compiling for this machine, once: relu_numba.rectify" in sent
    assert not re.search(r"(?<!\x1b)\[\d*[A-Z]", sent)  # an escape without its first byte
    *_, shown = sent.rpartition("rectify")
    assert re.search(r"\x1b\[2K.*result 2016\.0\r\n$", shown, re.DOTALL)  # erased before anything else is printed
    assert sent.count("\n") == 1 + sent.count("\x1b[1A")  # all other lines were gone back to


def test_a_progress_bar_is_not_torn(tmp_path):
    code = """
from rich.console import Console
from rich.progress import Progress
with Progress(console=Console(stderr=True)) as bar:
    bar.add_task("epoch"); relu()
"""
    sent = on_a_terminal(tmp_path, code)
    assert sent.count("compiling kernels for this machine, once") == 1 and "once: " not in sent
    assert not re.search(r"(?<!\x1b)\[\d*[A-Z]", sent)
