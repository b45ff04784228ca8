"""The text of a .cu file as it is compiled: headers written out, types and constants given."""

from __future__ import annotations

import re
from pathlib import Path

from alexnet_np.kernels.gpu.arguments import Kernel

HERE = Path(__file__).parent.parent  # where the .cu files lie beside their launchers


def source(stem: str) -> str:
    """The text of `stem`.cu with its `#include`s written out: CuPy's cache of compiled kernels does not see headers."""
    seen: set[str] = set()

    def written_out(name: str) -> str:
        text = (HERE / name).read_text().replace("#pragma once\n", "\n")

        def include(match: re.Match[str]) -> str:
            if match[1] in seen:
                return "\n"
            seen.add(match[1])
            line = text[: match.end()].count("\n") + 1
            return f'#line 1 "{match[1]}"\n{written_out(match[1])}#line {line} "{name}"\n'

        return re.sub(r'#include "([\w/]+\.cuh)"\n', include, text)

    return written_out(f"{stem}.cu")


def compile_options(kernel: Kernel) -> tuple[str, ...]:
    return ("--std=c++17", *(f"-D{name}={value}" for name, value in kernel.defines))
