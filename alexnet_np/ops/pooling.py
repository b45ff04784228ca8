"""The windows of max and average pooling: torch's arguments, what they may be, and how many windows fit an input."""

from __future__ import annotations

from typing import Any, NamedTuple

from alexnet_np.arguments import flag, pair
from alexnet_np.errors import ArgumentError, ShapeError

Pair = tuple[int, int]


class Windows(NamedTuple):
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil_mode: bool


def find_windows(
    op: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1, ceil_mode: Any = False
) -> Windows:
    """The arguments, normalised: what can be said of them without an input. Raises ArgumentError."""
    kernel = pair(op, "kernel_size", kernel_size, 1)
    same = stride is None or (isinstance(stride, tuple | list) and not stride)
    steps = kernel if same else pair(op, "stride", stride, 1)
    ceil_mode = flag(op, "ceil_mode", ceil_mode)
    sides, spread = pair(op, "padding", padding, 0), pair(op, "dilation", dilation, 1)
    if any(2 * p > k for p, k in zip(sides, kernel, strict=True)):
        raise ArgumentError(f"{op}: padding {sides} must be at most half of the kernel {kernel}")
    return Windows(kernel, steps, sides, spread, ceil_mode)


def find_output(op: str, shape: tuple[int, ...], windows: Windows) -> Pair:
    """(OH, OW) for x (N,C,H,W): floor((H + 2*padding - dilation*(KH-1) - 1) / stride) + 1.

    With `ceil_mode` rounded up, but the last window must start inside the input or its left padding. Raises ShapeError.
    """
    kernel, steps, sides, spread, ceil_mode = windows
    if min(shape[1:]) < 1:
        raise ShapeError(f"{op}: x has an empty side: {shape}")
    output = []
    for side in (0, 1):
        size = shape[2 + side]
        room = size + 2 * sides[side] - spread[side] * (kernel[side] - 1) - 1
        count = (room + (steps[side] - 1 if ceil_mode else 0)) // steps[side] + 1
        if ceil_mode and (count - 1) * steps[side] >= size + sides[side]:
            count -= 1  # that window would start beyond the input and its left padding
        if count < 1:
            dilated = f" with dilation {spread}" if spread != (1, 1) else ""
            raise ShapeError(
                f"{op}: a {kernel[0]}x{kernel[1]} kernel{dilated} is larger than the input {shape[2]}x{shape[3]} "
                f"with padding {sides}"
            )
        output.append(count)
    return output[0], output[1]
