"""The benchmark of reading weights: every reader of every format gives the same numbers, and a wrong one is noticed."""

import numpy as np
import pytest

from alexnet_np.measure import load


def test_every_reader_of_every_format_gives_the_same_numbers(tmp_path):
    files = load.files(tmp_path, width=1 / 16)
    assert {file.path.suffix for file in files} == {".pth", *load.OTHERS}
    for file in files:
        reading, summing = load.weight_works(file)
        names = [contender.name for contender in reading.contenders]
        assert names[0] == "alexnet_np" and names[1].startswith("torch.load")
        for work in (reading, summing):
            for contender in work.contenders:
                work.check(contender.run())
    with pytest.raises(AssertionError, match="numbers are not there"):
        reading.check({"weight": np.zeros(64)})
    with pytest.raises(AssertionError):
        summing.check(1e6)
