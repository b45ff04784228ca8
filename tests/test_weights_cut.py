"""A file of any format that is cut or rewritten once it was read: what was read stays; and cut short it is refused."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("resource")

from mutated_weights import WRITERS  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import WeightsError  # noqa: E402


@pytest.mark.parametrize("kind", WRITERS)
def test_what_was_read_stays_and_a_part_is_refused(tmp_path, kind):
    path = tmp_path / "weights"
    WRITERS[kind](path)
    raw, read = path.read_bytes(), anp.weights.read(path)
    before = {name: np.array(array) for name, array in read.items()}
    for later in (b"\xff" * len(raw), b""):
        path.write_bytes(later)
        assert all(np.array_equal(read[name], array) for name, array in before.items())
    for share in (0.001, 0.02, 0.3, 0.7, 0.97):
        if kind == "tar" and share > 0.9:  # what is missing then is what a tar file is filled up with
            continue
        path.write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(WeightsError):
            anp.weights.read(path)
