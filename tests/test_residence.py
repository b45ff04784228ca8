"""Memory that a job keeps for its next image, and what it gives back: LLVM's code, and the C library's free pieces."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="madvise and /proc are Linux's")
glibc = pytest.mark.skipif(not any(Path("/lib").glob("*/libc.so.6")), reason="malloc_trim and mallopt are glibc's")

# A kernel is compiled before and after; what stays of LLVM's code is counted between.
DROPPING = """
import numba
from alexnet_np.jobs import residence

def resident():
    found, ours = 0, False
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0]:
            ours = "llvmlite" in line and " r-xp " in line
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found

twice = numba.njit(lambda x: 2 * x)
assert twice(3) == 6
before = resident()
residence.drop_compiler()
dropped = resident()
thrice = numba.njit(lambda x: 3 * x)
assert (twice(4), thrice(4), twice(0.5)) == (8, 12, 1.0)
print(before, dropped, resident())
"""

TRIMMING = """
import ctypes
from alexnet_np.jobs import residence

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

pieces = [bytes(60_000) for _ in range(2000)]  # from the heap, and every one but the last is given back to it
for piece in pieces:
    ctypes.memset(id(piece) + 64, 1, 50_000)
last = pieces[-1]
del pieces, piece
before = resident()
residence.trim()
print(before, resident())
"""

REUSING = """
import resource
import numpy as np
from alexnet_np.jobs import residence

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        np.empty(750_000, np.uint8)[:] = 1  # the pixels of a photograph
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
residence.reuse()
print(before, faults())
"""


def printed(code, **variables):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **variables})
    assert run.returncode == 0, run.stderr
    return [int(number) for number in run.stdout.split()]


@linux
def test_llvms_code_goes_and_comes_back():
    before, dropped, after = printed(DROPPING)
    assert before > 20_000  # kilobytes
    assert dropped < 1_000 < after


@linux
@glibc
def test_free_pieces_go():
    before, after = printed(TRIMMING)
    assert before - after > 50_000


@linux
@glibc
def test_pixels_memory_is_used_again_where_dask_has_it_given_back():
    before, after = printed(REUSING, MALLOC_TRIM_THRESHOLD_="65536")
    assert before > 200 * 100 > 1000 > after
    before, after = printed(REUSING.replace("residence.reuse()", ""), MALLOC_TRIM_THRESHOLD_="65536")
    assert after > 200 * 100


def test_elsewhere_nothing_happens(monkeypatch):
    from alexnet_np.jobs import residence

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(residence.ctypes, "CDLL", None)
    residence.reuse()
    residence.trim()
    residence.drop_compiler()
