"""Every .cu compiles for every NVIDIA architecture from sm_75 on that the compiler at hand knows; no GPU is needed.

NVRTC, which comes with CuPy, is what compiles on a user's machine; without CuPy it is nvcc. Every build that the
launchers ask for is compiled for sm_90, and one build of each file for every architecture; sm_90's are the quick ones.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cuda_shim
import numpy as np
import pytest
from cuda_shim import Recorder
from cuda_shim.cases import launch_everything

from alexnet_np.kernels.gpu import runtime
from alexnet_np.kernels.gpu.arguments import Kernel
from alexnet_np.kernels.gpu.source import HERE, compile_options, source

NVRTC, NVCC = importlib.util.find_spec("cupy") is not None, shutil.which("nvcc")
USUAL = 90
WITH_NVCC = (75, 80, 86, 90)  # and its newest; it is several times slower than NVRTC

pytestmark = pytest.mark.skipif(not (NVRTC or NVCC), reason="needs CuPy (for NVRTC) or nvcc to compile CUDA")


def architectures() -> list[int]:
    if NVRTC:
        from cupy.cuda import nvrtc

        return [a for a in nvrtc.getSupportedArchs() if a >= 75]
    if NVCC:
        listed = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
        known = [int(a) for a in re.findall(r"compute_(\d+)$", listed, re.M)]
        return sorted({a for a in WITH_NVCC if a in known} | {max(known)})
    return [USUAL]


@cache
def builds() -> list[Kernel]:
    """One kernel of each build (file, dtype, defines) that the cases launch."""
    recorder = Recorder()
    with runtime.use_executor(recorder), np.errstate(all="ignore"):
        launch_everything()
    return sorted({(kernel.stem, kernel.defines): kernel for kernel in sorted(recorder.launched)}.values())


def compile_to_cubin(kernel: Kernel, arch: int) -> tuple[bytes, str]:
    """The machine code and what the compiler had to say."""
    options = (f"-arch=sm_{arch}", *compile_options(kernel))
    return with_nvrtc(kernel, options) if NVRTC else with_nvcc(kernel, options)


def with_nvrtc(kernel: Kernel, options: tuple[str, ...]) -> tuple[bytes, str]:
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(source(kernel.stem), f"{kernel.stem}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError:
        return b"", nvrtc.getProgramLog(program)


def with_nvcc(kernel: Kernel, options: tuple[str, ...]) -> tuple[bytes, str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{Path(kernel.stem).name}.cu"
        file.write_text(source(kernel.stem))
        command = [str(NVCC), "-cubin", *options, "-o", f"{folder}/out.cubin", str(file)]
        result = subprocess.run(command, capture_output=True, text=True)
        return (b"" if result.returncode else Path(folder, "out.cubin").read_bytes()), result.stdout + result.stderr


def check(wanted: list[Kernel], arch: int) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda kernel: compile_to_cubin(kernel, arch), wanted))
    for kernel, (cubin, log) in zip(wanted, results, strict=True):
        assert cubin, f"{kernel.stem} {kernel.defines}: {log}"
        assert "warning" not in log, f"{kernel.stem} {kernel.defines}: {log}"


@pytest.mark.parametrize(
    "arch", [pytest.param(arch, marks=[] if arch == USUAL else pytest.mark.slow) for arch in architectures()]
)
def test_every_file_compiles(arch: int) -> None:
    one_each = {kernel.stem: kernel for kernel in reversed(builds())}  # reversed, so that it is the first of each file
    check(list(one_each.values()), arch)


@pytest.mark.slow
def test_every_build_compiles() -> None:
    check(builds(), USUAL)


def test_the_builds_cover_every_file() -> None:
    assert {kernel.stem for kernel in builds()} == set(cuda_shim.sources())
    assert {dict(kernel.defines)["REAL"] for kernel in builds()} == {"float", "double"}


@pytest.mark.skipif(not NVCC, reason="needs nvcc, which reports what ptxas does with registers")
def test_the_tiled_convolution_keeps_its_tile_in_registers() -> None:
    """A spill would send the inner loop to memory: correct, and many times slower."""
    for kernel in builds():
        if kernel.stem == "conv2d_implicit":
            _, log = with_nvcc(kernel, ("-arch=sm_90", "-Xptxas", "-v", *compile_options(kernel)))
            assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log, log


def test_a_fault_names_its_file_and_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers are written out into the source, and still the lines must be those of the file."""
    text = source("relu")
    monkeypatch.setattr(sys.modules[__name__], "source", lambda stem: text + "int fault = nonsense;")
    cubin, log = compile_to_cubin(next(kernel for kernel in builds() if kernel.stem == "relu"), USUAL)
    line = len((HERE / "relu.cu").read_text().splitlines()) + 1
    assert not cubin
    assert f"relu.cu({line})" in log
