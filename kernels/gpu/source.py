"""The text of a .cu file as it is compiled: headers written out, types and constants given."""

from __future__ import annotations

import re
from pathlib import Path

from alexnet_np.kernels.gpu.arguments import Kernel

HERE = Path(__file__).parent.parent  # where the .cu files lie beside their launchers


def source(stem: str) -> str:
    """The text of `stem`.cu with its `#include`s written out: CuPy's cache of compiled kernels does not see headers."""

    def written_out(match: re.Match[str]) -> str:
        return f'#line 1 "{match[1]}"\n' + (HERE / match[1]).read_text().replace("#pragma once\n", "\n")

    text = (HERE / f"{stem}.cu").read_text()
    line = text[: text.index("#include")].count("\n") + 2
    return re.sub(r'#include "(\w+\.cuh)"\n', lambda m: written_out(m) + f'#line {line} "{stem}.cu"\n', text)


def compile_options(kernel: Kernel) -> tuple[str, ...]:
    return ("--std=c++17", *(f"-D{name}={value}" for name, value in kernel.defines))
