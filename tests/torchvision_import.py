"""Import torchvision even where its compiled operators do not load, as beside a torch that it was not built for.

Its import then stops at `operator torchvision::nms does not exist`, though models and transforms need no operator of
it: declaring the two that it asks for, without an implementation, is enough.
"""

import sys
from types import ModuleType

import pytest

_declared: list = []  # torch forgets the operators when the Library object dies


def import_torchvision() -> ModuleType:
    """torchvision; the test is skipped where torch or torchvision is not installed."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("PIL")
    try:
        import torchvision
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half-imported
        _declared.append(torch.library.Library("torchvision", "DEF"))
        for name in "nms", "qnms":
            _declared[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision
