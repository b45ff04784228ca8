"""What the constants of a normalisation mean, whoever wrote them down: y = x / (k + scale·Σ)^beta.

Programs divide alpha by the window, or do not, and put the longer side of an even window below or above. Here each
dialect is read as what it computes, so that files can be compared, and written in another.

Source: ops/local_response_norm.py, whose table of conventions this reads.
"""

from __future__ import annotations

from typing import NamedTuple

from alexnet_np.errors import WeightsError
from alexnet_np.weights.steps import Step

# dialect -> (is alpha divided by the window, which side of an even window is the longer one)
DIALECTS = {
    "torch": (True, "below"),
    "krizhevsky": (True, "below"),
    "caffe": (True, "above"),
    "onnx": (True, "above"),
    "matlab": (True, "above"),
    "matconvnet": (False, "above"),
    "paper": (False, "both"),  # n + 1 maps
    "tensorflow": (False, "both"),
}


class Reach(NamedTuple):
    """A normalisation as what it computes: how far it sees, and with what it weighs the sum of squares."""

    region: str  # "across" maps, or "within" each
    low: int
    high: int
    scale: float
    beta: float
    k: float
    groups: int


def reach(each: Step) -> Reach:
    """What a step of kind lrn computes. Raises WeightsError for a dialect that is not known."""
    said = each.settings
    if said["convention"] not in DIALECTS:
        raise WeightsError(f"{each.name}: no dialect of LRN is called {said['convention']!r}")
    divided, longer = DIALECTS[said["convention"]]
    n, region = said["size"], said["region"]
    below = n // 2 if longer in ("below", "both") else (n - 1) // 2
    above = n // 2 if longer in ("above", "both") else (n - 1) // 2
    window = (n if region == "across" else n * n) if divided else 1
    return Reach(region, below, above, said["alpha"] / window, said["beta"], said["k"], said["groups"])


def alpha_in(dialect: str, sees: Reach) -> float | None:
    """The alpha by which `dialect` says the same; None where its window of this size is another one."""
    divided, longer = DIALECTS[dialect]
    n = sees.low + sees.high + 1
    if sees.low != sees.high and (longer == "both" or (sees.low > sees.high) != (longer == "below")):
        return None
    return sees.scale * (n if sees.region == "across" else n * n) if divided else sees.scale
