"""Does a mapping name -> array fit a model? Names, shapes, and on request that every number is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from alexnet_np.device import array_module, as_array
from alexnet_np.errors import WeightsError
from alexnet_np.text import listed, quoted

Shape = tuple[int, ...]


def match(
    mapping: Mapping[str, Any], expected: Mapping[str, Shape], strict: bool = True
) -> tuple[list[str], list[str]]:
    """The names that `expected` has and `mapping` lacks (missing), and the other way round (unexpected).

    Raises WeightsError, one line with every such name and every array of a wrong shape; with strict=False, as in torch,
    missing and unexpected names pass and wrong shapes still do not.
    """
    missing = [name for name in expected if name not in mapping]
    unexpected = [name for name in mapping if name not in expected]
    shapes = {name: (np.shape(mapping[name]), tuple(expected[name])) for name in expected if name in mapping}
    wrong = [f"{name} is {have}, not {want}" for name, (have, want) in shapes.items() if tuple(have) != want]
    faults = {
        "missing": listed(missing) if strict else "",
        "unexpected": listed(unexpected) if strict else "",
        "wrong shape": ", ".join(wrong),
    }
    if any(faults.values()):
        text = "; ".join(f"{fault}: {names}" for fault, names in faults.items() if names)
        raise WeightsError(f"the weights do not fit the model; {text}")
    return missing, unexpected


def check_finite(mapping: Mapping[str, Any]) -> None:
    """Raises WeightsError naming the arrays that hold NaN or infinity, and how many of each."""
    faults = []
    for name, value in mapping.items():
        array = as_array(value, name)
        xp = array_module(array)
        if not xp.isfinite(array).all():
            nans, infinite = int(xp.isnan(array).sum()), int(xp.isinf(array).sum())
            faults.append(f"{quoted(name)} ({nans} NaN, {infinite} infinite of {array.size})")
    if faults:
        more = f" and {len(faults) - 5} more arrays" if len(faults) > 5 else ""
        raise WeightsError(
            f"not finite: {', '.join(faults[:5])}{more}; the training that made them diverged, or the file is damaged"
        )
