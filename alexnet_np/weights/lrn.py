"""What the constants of a normalisation in a file mean, whoever wrote them down, and what they are in other dialects.

The dialects and what they compute stand in ops/local_response_norm.py; here its errors become those of a file.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from alexnet_np.errors import ArgumentError, WeightsError
from alexnet_np.ops.local_response_norm import CONVENTIONS, Geometry, convert, find_geometry
from alexnet_np.weights.steps import Step


def geometry(each: Step) -> Geometry:
    """What a step of kind lrn computes. Raises WeightsError for constants that no dialect has."""
    try:
        return find_geometry(**each.settings)
    except ArgumentError as error:
        raise WeightsError(f"{each.name}: {error}") from None


def in_every_dialect(each: Step) -> dict[str, dict[str, Any]]:
    """size, alpha, beta and k by which each dialect says the same; without those that cannot."""
    said = {name: each.settings[name] for name in ("size", "alpha", "beta", "k", "region")}
    found = {}
    for dialect in CONVENTIONS:
        with suppress(ArgumentError):
            found[dialect] = convert(**said, source=each.settings["convention"], target=dialect)
    return found
