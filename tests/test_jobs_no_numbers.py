"""Jobs with a network that gives NaN: refused, in one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import fails

import alexnet_np as anp


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_it_is_said(tmp_path, monkeypatch, backend):
    """NaN is no label, and sorts as the first."""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()  # of its own: similar keeps an index beside the pictures
    picture = Path(shutil.copy(Path(anp.__file__).parent / "assets" / "cat.jpg", "pictures"))
    model = anp.alexnet("torchvision", width=1 / 16, num_classes=10, seed=5)
    broken = {name: array.copy() for name, array in model.state_dict().items()}
    broken["features.3.weight"][0, 0] = np.nan
    anp.weights.write("w.pth", broken)
    options = "--weights", "w.pth", "--backend", backend
    for said in (
        fails("classify", picture, *options),
        fails("embed", picture, "--out", "v.npz", *options),
        fails("similar", picture, picture.parent, *options),
    ):
        assert "NaN or infinite" in said and "`alexnet weights inspect FILE --finite` says which" in said
    assert sorted(path.name for path in Path().iterdir()) == ["pictures", "w.pth"]
