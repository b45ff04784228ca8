"""Damaged weight files by the thousand, each read in this process: run by test_weights_mutated.py as a child.

    python mutated_weights.py COUNT SEED FORMAT...

Prints a line of JSON for each format: how many were read, how many were refused, and what went wrong otherwise. A
process that dies prints none.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cuda_convnet_files
import numpy as np
import torch
import weight_files
import weight_formats

import alexnet_np as anp
from alexnet_np import inspection
from alexnet_np.errors import WeightsError

SECONDS = 1.0  # of processor time that one file may take
EXTRA = 64 << 10  # KiB that the process may grow by: these files have some 100 KiB
NUMBERS = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def state() -> dict[str, np.ndarray]:
    return anp.alexnet("paper", width=1 / 64, num_classes=3, seed=0).state_dict()


def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in state().items()}


def _safetensors(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(state(), path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "zip": lambda path: weight_files.save_zip(path, {"model": tensors(), "epoch": 3}),
    "legacy": lambda path: weight_files.save_legacy(path, {"model": tensors(), "epoch": 3}),
    "tar": lambda path: weight_files.save_tar(path, tensors()),
    "safetensors": _safetensors,
    "npz": lambda path: np.savez(path.open("wb"), **state()),
    "npy": lambda path: weight_formats.guerzhoy(path, state()),
    "caffemodel V0": lambda path: weight_formats.caffemodel(path, state(), 0),
    "caffemodel V1": lambda path: weight_formats.caffemodel(path, state(), 1),
    "caffemodel V2": lambda path: weight_formats.caffemodel(path, state(), 2),
    "onnx": lambda path: weight_formats.onnx_file(path, state()),
    "mat": lambda path: weight_formats.matconvnet(path, state()),
    "mat, compressed": lambda path: weight_formats.matconvnet(path, state(), packed=True),
    "hdf5": lambda path: weight_formats.hdf5(path, state()),
    "cuda-convnet": lambda path: path.write_bytes(cuda_convnet_files.cuda_convnet(state())),
}


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """`raw` with some bytes flipped, cut, copied over or put in, mostly where the structure is: at either end."""
    content = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        size = len(content)
        near = min(size - 1, int(chance.expovariate(1 / 600)))
        at = chance.choice((near, near, size - 1 - near, chance.randrange(size)))
        match chance.randrange(8):
            case 0 | 1:
                content[at] ^= 1 << chance.randrange(8)
            case 2 | 3:
                content[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 4:
                del content[at:]
            case 5:
                content[at : at + chance.randrange(40)] = chance.randbytes(chance.randrange(20))
            case 6:
                start = chance.randrange(size)
                length = int(chance.random() ** 4 * 4000)
                content[at : at + length] = content[start : start + length]
            case 7:
                content[at : at + 8] = chance.choice(NUMBERS).to_bytes(8, "little")
        content = content or bytearray(b"x")
    return bytes(content)


def main(kind: str, count: int, seed: int) -> dict[str, Any]:
    read, refused, wrong = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights")
        WRITERS[kind](path)
        raw = path.read_bytes()
        anp.weights.read(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(seed, seed + count):
            path.write_bytes(mutated(raw, random.Random(f"{kind} {i}")))
            start = time.process_time()
            try:
                anp.weights.read(path)
                read += 1
                if i % 4 == 0:
                    inspection.inspect(path).words()
            except WeightsError as error:
                refused += 1
                if "\n" in str(error) or len(str(error)) > 1500:
                    wrong.append(f"{i}: a message of {len(str(error))} characters")
            except Exception as error:
                wrong.append(f"{i}: {type(error).__name__}: {error}")
            if time.process_time() - start > SECONDS:
                wrong.append(f"{i}: {time.process_time() - start:.1f} s")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if grown > EXTRA:
            wrong.append(f"{grown} KiB more than before")
    return {"read": read, "refused": refused, "wrong": wrong}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for kind in sys.argv[3:]:
        print(json.dumps(main(kind, int(sys.argv[1]), int(sys.argv[2]))), flush=True)
