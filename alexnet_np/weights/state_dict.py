"""Which part of what torch.save wrote is the state dict, and how its names are tidied.

The rule: a checkpoint's weights lie under the first of the keys in `CONTAINERS` that holds a dict; otherwise the whole
must be a dict of name -> tensor. Where every name begins with one of `PREFIXES`, which torch's wrappers put before the
model's own names, that is taken off.
"""

from __future__ import annotations

from typing import Any

from alexnet_np.errors import WeightsError
from alexnet_np.text import quoted
from alexnet_np.weights.pickled import Parameter
from alexnet_np.weights.tensors import Tensor

CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")  # nn.DataParallel and its distributed twin; torch.compile


def tensors_of(saved: Any) -> dict[str, Tensor]:
    """The name -> tensor dict in what a pickle held. Raises WeightsError."""
    if type(saved) is not dict:
        raise WeightsError(f"holds {_kind(saved)}, not a state dict: save model.state_dict()")
    inner = next((saved[key] for key in CONTAINERS if type(saved.get(key)) is dict), saved)
    tensors = {name: value.tensor if type(value) is Parameter else value for name, value in inner.items()}
    for name, tensor in tensors.items():
        if type(name) is not str or type(tensor) is not Tensor:
            raise WeightsError(
                f"holds {_kind(tensor)} under {quoted(str(name))}, so it is not a state dict: save model.state_dict(), "
                f"alone or under one of the keys {', '.join(CONTAINERS)}"
            )
    return tensors


def _kind(value: Any) -> str:
    return "a bare tensor" if type(value) in (Tensor, Parameter) else f"an object of type {type(value).__name__}"


def without_prefixes(arrays: dict[str, Any]) -> dict[str, Any]:
    """The same arrays, without the prefixes that all names share (wrappers wrap each other, so up to two of each)."""
    for prefix in PREFIXES * 2:
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays
