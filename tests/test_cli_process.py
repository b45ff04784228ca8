"""The command line as a program: exit codes, what goes to which stream, signals, closed pipes, missing packages."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import alexnet_np as anp

CAT = Path(anp.__file__).parent / "assets" / "cat.jpg"
START = "from alexnet_np.cli import main; main()"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder without any weights but a small network's."""
    home = tmp_path_factory.mktemp("home")
    np.savez(home / "narrow.npz", **anp.alexnet("torchvision", width=1 / 16, seed=0).state_dict())
    return home


def environment(home):
    return os.environ | {"ALEXNET_NP_HOME": str(home), "TORCH_HOME": str(home), "PYTHONUNBUFFERED": ""}


def alexnet(home, *arguments, start=START, **options):
    command = [sys.executable, "-c", start, *map(str, arguments)]
    return subprocess.run(command, cwd=home, env=environment(home), capture_output=True, timeout=120, **options)


def without(*packages):
    """A program in which these packages cannot be imported."""
    return "\n".join(["import sys", *(f"sys.modules[{name!r}] = None" for name in packages), START])


def test_demo_needs_no_weights_no_torch_and_no_network_full_size(home):
    done = alexnet(home, "demo", start=without("torch", "torchvision"))
    said = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "random, seed 0: the labels below mean nothing" in said
    assert "alexnet weights download IMAGENET1K_V1" in said
    assert "Not compared with torchvision" in said
    for name, _ in anp.alexnet("torchvision", width=1 / 32).leaves():
        assert name in said
    assert "1×64×55×55" in said
    assert max(map(len, said.splitlines())) <= 200
    assert "Traceback" not in said


def test_json_is_all_there_is_on_standard_output_and_errors_are_one_line(home):
    (home / "bad.jpg").write_bytes(b"no image")
    done = alexnet(home, "classify", CAT, "bad.jpg", "--weights", "narrow.npz", "--json")
    assert done.returncode == 1
    assert len(json.loads(done.stdout)["results"]) == 1
    assert done.stderr.decode() == "alexnet: bad.jpg: not an image, or of a format that Pillow does not know\n"

    done = alexnet(home, "classify", CAT, "--json")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.count(b"\n") == 1


def test_an_enormous_image_is_one_line_without_pillows_warning(home):
    start = "from PIL import Image; Image.MAX_IMAGE_PIXELS = {}; " + START
    for limit, said in ((60_000, b"MAX_IMAGE_PIXELS"), (10, b"bomb")):  # beyond twice the limit Pillow raises
        done = alexnet(home, "classify", CAT, "-w", "narrow.npz", start=start.format(limit))
        assert done.returncode == 1
        assert said in done.stderr and done.stderr.count(b"\n") == 1, done.stderr


def test_standard_input(home):
    done = alexnet(home, "classify", "-", "-k", 1, "-w", "narrow.npz", input=CAT.read_bytes())
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().rstrip().endswith("standard input")
    done = alexnet(home, "classify", "-", "-w", "narrow.npz", input=b"")
    assert (done.returncode, done.stderr) == (
        1,
        b"alexnet: standard input: not an image, or of a format that Pillow does not know\n",
    )


def test_names_that_no_terminal_can_show(home):
    name = os.fsdecode(b"caf\xe9\x1b[31m.jpg")
    shutil.copy(CAT, home / name)
    done = alexnet(home, "classify", name, "-w", "narrow.npz")
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    done = alexnet(home, "embed", name, "-w", "narrow.npz", "-o", "v.npy")
    assert done.returncode == 0, done.stderr
    assert (home / "v.npy.txt").read_bytes() == os.fsencode(name) + b"\n"
    if find_spec("pyarrow"):
        done = alexnet(home, "embed", name, "-w", "narrow.npz", "-o", "v.parquet")
        assert done.returncode == 0, done.stderr


def test_an_output_that_cannot_be_written(home):
    done = alexnet(home, "embed", CAT, "-w", "narrow.npz", "-o", "/proc/vectors.npz")
    assert done.returncode == 1
    assert done.stderr.startswith(b"alexnet: /proc/vectors.npz: cannot be written: ")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_leaves_early_is_no_error(home):
    for arguments in ["summary", "--width", "0.1"], ["summary", "--width", "0.1", "--json"]:
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-c", START, *arguments]
        done = subprocess.run(command, env=environment(home), stdout=writing, stderr=subprocess.PIPE, timeout=120)
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, b"")


def test_an_interrupt_ends_with_130_and_no_traceback(home):
    folder = home / "many"
    folder.mkdir()
    for i in range(3000):
        (folder / f"{i}.jpg").symlink_to(CAT)
    command = [sys.executable, "-c", START, "classify", "many", "-w", "narrow.npz", "-k", "1", "-b", "4"]
    running = subprocess.Popen(
        command, cwd=home, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert running.stdout.read(1)  # it has begun
    running.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, said = running.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert running.returncode == 130
    line = said.splitlines()[-1]  # after what is said of kernels that are compiled
    assert re.fullmatch(rb"alexnet: stopped: \d+ of 3000 images were classified; the labels above stand", line), said


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_a_missing_command_line_package_is_one_line(home, package):
    done = alexnet(home, "demo", start=without(package))
    assert done.returncode == 1
    assert done.stderr == b"alexnet: the command line needs the packages typer and rich: pip install typer rich\n"


def test_verify_without_torch_is_one_line(home):
    done = alexnet(home, "verify", "-w", "narrow.npz", start=without("torch"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"alexnet: torch cannot be imported")
    assert done.stderr.count(b"\n") == 1


def test_help_is_quick_because_nothing_heavy_is_imported(home):
    listing = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    done = alexnet(home, "--help", start=listing + START)
    assert done.returncode == 0
    assert not {b"torch", b"numba", b"cupy", b"matplotlib", b"scipy"} & set(done.stderr.split())
