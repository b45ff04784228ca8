"""What a hostile weight file must come to: one line, soon, in little memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import WeightsError  # noqa: E402


def fails(path, *words: str, seconds: float = 10.0, megabytes: float = 64.0) -> None:
    """Reading `path` is refused on one line with these words, soon, and in bounded memory."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(WeightsError) as caught:
            anp.weights.read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    assert all(word in message for word in words), message
    assert peak < megabytes * 2**20, f"{peak / 2**20:.0f} MiB"
    assert time.perf_counter() - start < seconds
