"""The course's exercises: `check("output_size", output_size)` says whether your function is right, and where it is not.

A check calls the function with several inputs and compares each answer with torch's, or with a count done by hand. It
prints one line. With the environment variable COURSE_STRICT=1, or `check(..., strict=True)`,
a wrong answer raises NotYet instead: so a class can be marked, and so the tests know that the checks can fail.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

EXACT = 1e-9  # relative, in float64: ten million times rounding, a thousandth of any mistake worth making


class NotYet(AssertionError):
    """The answer is missing or wrong."""


class Case(NamedTuple):
    """One call and its answer; `hint` is shown where the answer is another."""

    arguments: tuple
    want: Any
    hint: str
    most: int | None = None  # multiplications of two given numbers; None: any number of them


def check(name: str, function: Callable, strict: bool | None = None) -> None:
    """Print whether `function` is a right answer to the exercise `name`, and if not, where it is wrong.

    Raises KeyError for an exercise that does not exist, NotYet in strict mode.
    """
    if name not in EXERCISES:
        raise KeyError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    fault = find_fault(name, function)
    if fault is None:
        print(f"{name}: right.")
    elif strict if strict is not None else os.environ.get("COURSE_STRICT", "0") not in ("", "0"):
        raise NotYet(f"{name}: {fault}")
    else:
        print(f"{name}: not yet. {fault}")


def find_fault(name: str, function: Callable) -> str | None:
    """The first thing wrong with the function, in one sentence; None where there is none."""
    for case in EXERCISES[name]():
        given = copy.deepcopy(case.arguments)
        Counted.multiplications = 0
        try:
            got = function(*given)
        except Exception as error:
            return f"{shown(name, case.arguments)} raises {type(error).__name__}: {error}"
        if got is None:
            return "It returns nothing so far."
        if not same(given, case.arguments):
            return "It changes the arrays that it is given; work on a copy."
        if fault := difference(got, case.want):
            return f"{shown(name, case.arguments)}: {fault}. {case.hint}"
        if case.most is not None and Counted.multiplications > case.most:
            return f"Right, but with {Counted.multiplications} multiplications; {case.most} are enough."
    return None


def difference(got: Any, want: Any) -> str | None:
    try:
        got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    except (TypeError, ValueError):
        return f"it returns {type(got).__name__}, which is no number and no array"
    if got.shape != want.shape:
        return f"it returns shape {got.shape}, wanted is {want.shape}"
    if not got.size or np.allclose(got, want, rtol=EXACT, atol=EXACT * max(1.0, np.abs(want).max())):
        return None
    if not got.shape:
        return f"it returns {got:g}, wanted is {want:g}"
    off = np.where(np.isnan(got), np.inf, np.abs(got - want))
    at = np.unravel_index(int(off.argmax()), off.shape)
    return f"at {tuple(int(i) for i in at)} it has {got[at]:g}, wanted is {want[at]:g}"


def same(a: tuple, b: tuple) -> bool:
    return all(np.array_equal(x, y) if isinstance(x, np.ndarray) else True for x, y in zip(a, b, strict=True))


def shown(name: str, arguments: tuple) -> str:
    parts = [f"<{'x'.join(map(str, a.shape))}>" if isinstance(a, np.ndarray) else repr(a) for a in arguments]
    return f"{name}({', '.join(parts)})"


def draw(*shape: int) -> np.ndarray:
    """The same float64 normal numbers for a shape, every time."""
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def of_torch(function: Callable, *arrays: np.ndarray, **keywords: Any) -> np.ndarray:
    return function(*map(torch.from_numpy, arrays), **keywords).numpy()


def gradient(function: Callable, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """torch's gradient of `function` at x, dy coming back."""
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    function(leaf).backward(torch.from_numpy(dy))
    return leaf.grad.numpy()


# 1, one convolution


def output_size() -> Iterator[Case]:
    for size, kernel, stride, padding in ((5, 3, 1, 0), (7, 3, 2, 0), (8, 3, 2, 0), (224, 11, 4, 2), (27, 5, 1, 2)):
        want = len(F.conv1d(torch.zeros(1, 1, size), torch.zeros(1, 1, kernel), None, stride, padding)[0, 0])
        yield Case((size, kernel, stride, padding), want, "Both sides are padded; what does not fill a stride is lost.")


def convolve() -> Iterator[Case]:
    hints = {
        (1, 0): "The filter is laid on as it is, not turned around, and the channels are summed.",
        (2, 0): "A stride of 2 moves the window two pixels at a time.",
        (2, 1): "Padding is a frame of zeros around the picture.",
    }
    for (stride, padding), hint in hints.items():
        x, weight, bias = draw(3, 8, 7), draw(4, 3, 3, 3), draw(4)
        want = of_torch(F.conv2d, x, weight, bias, stride=stride, padding=padding)
        yield Case((x, weight, bias, stride, padding), want, hint)


# 2, im2col


def im2col() -> Iterator[Case]:
    for shape, kernel, stride in (((1, 4, 4), 2, 1), ((3, 7, 6), 3, 1), ((2, 9, 8), 3, 2)):
        want = F.unfold(torch.from_numpy(draw(*shape))[None], kernel, stride=stride)[0].numpy()
        hint = "A window is a column: its channels, then rows, then columns, as in weight.reshape(F, -1)."
        yield Case((draw(*shape), kernel, stride), want, hint)


def column_bytes() -> Iterator[Case]:
    hint = "C·K·K rows and OH·OW columns an image, four bytes a number."
    yield Case((1, 3, 11, 55, 55), 4 * 363 * 3025, hint)
    yield Case((128, 64, 5, 27, 27), 4 * 128 * 1600 * 729, hint)


# 3, backward


def col2im() -> Iterator[Case]:
    for shape, kernel, stride in (((1, 4, 4), 2, 2), ((2, 6, 5), 3, 1), ((3, 9, 7), 3, 2)):
        count = [(side - kernel) // stride + 1 for side in shape[1:]]
        columns = draw(shape[0] * kernel * kernel, count[0] * count[1])
        want = F.fold(torch.from_numpy(columns)[None], shape[1:], kernel, stride=stride)[0].numpy()
        yield Case((columns, shape, kernel, stride), want, "Windows overlap: what two of them send to a pixel adds up.")


def dweight() -> Iterator[Case]:
    for stride in (1, 2):
        x, shape = draw(4, 3, 9, 9), (5, 3, 3, 3)
        dy = draw(4, 5, *(2 * [(9 - 3) // stride + 1]))
        want = gradient(lambda w, x=x, s=stride: F.conv2d(torch.from_numpy(x), w, stride=s), np.zeros(shape), dy)
        yield Case((x, dy, 3, stride), want, "Sum over every image and every place, not their mean.")


# 4, pooling, LRN, dropout, softmax


def max_pool_backward() -> Iterator[Case]:
    for x, hint in (
        (draw(2, 7, 7), "Windows overlap: a pixel that wins in two of them gets both gradients."),
        (np.zeros((1, 5, 5)), "Of equal pixels the first in row order wins, and it alone."),
    ):
        side = (x.shape[1] - 3) // 2 + 1
        dy = draw(x.shape[0], side, side)
        want = gradient(lambda leaf: F.max_pool2d(leaf[None], 3, 2)[0], x, dy)
        yield Case((x, dy), want, hint)


def lrn() -> Iterator[Case]:
    for size, hint in (
        (5, "torch divides alpha by the size of the window, which it cuts off at the first and the last channel."),
        (3, "The window has `size` channels."),
    ):
        x = draw(8, 3, 2)
        want = of_torch(lambda t, n=size: F.local_response_norm(t[None], n, 0.9, 0.75, 2.0)[0], x)
        yield Case((x, size, 0.9, 0.75, 2.0), want, hint)


def dropout() -> Iterator[Case]:
    x, mask = draw(4, 6), draw(4, 6) > 0
    for p in (0.5, 0.2):
        yield Case((x, mask, p, True), np.where(mask, x / (1 - p), 0), "What is kept grows by 1/(1 - p) in training.")
    yield Case((x, mask, 0.5, False), x, "In evaluation it does nothing.")


def softmax() -> Iterator[Case]:
    yield Case((draw(4, 10),), of_torch(F.softmax, draw(4, 10), dim=1), "Each row sums to one.")
    large = 1000 * draw(3, 5)
    hint = "exp(1000) is infinite. Subtract each row's largest number first: the quotient stays the same."
    yield Case((large,), of_torch(F.softmax, large, dim=1), hint)


# 5, the whole network


def count_parameters() -> Iterator[Case]:
    for layers in ([(3, 64, 11)], [(9216, 4096, 1)], ALEXNET):
        kept = [torch.nn.Conv2d(c, f, k, device="meta") for c, f, k in layers]
        want = sum(p.numel() for layer in kept for p in layer.parameters())
        yield Case((layers,), want, "A filter has C·K·K weights and one bias.")


ALEXNET = [(3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3)]
ALEXNET += [(9216, 4096, 1), (4096, 4096, 1), (4096, 1000, 1)]
WINDOWS = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]  # (kernel, stride), down to pool 5


def receptive_field() -> Iterator[Case]:
    for count in (1, 2, 3, len(WINDOWS)):
        size = 400  # one unit at the end of a chain of sums: the pixels that have a gradient are those that it sees
        x = torch.ones(1, 1, size, requires_grad=True)
        y = x
        for kernel, stride in WINDOWS[:count]:
            y = F.conv1d(y, torch.ones(1, 1, kernel), stride=stride)
        y[0, 0, 0].backward()
        hint = "A kernel of K reaches K - 1 steps further, and a step is as long as all strides before it, multiplied."
        yield Case((WINDOWS[:count],), int((x.grad != 0).sum()), hint)


# 6, Winograd


class Counted:
    """A number that counts the multiplications of two such numbers. Those by constants are free."""

    multiplications = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def __add__(self, other: Any) -> Counted:
        return Counted(self.value + plain(other))

    def __sub__(self, other: Any) -> Counted:
        return Counted(self.value - plain(other))

    def __rsub__(self, other: Any) -> Counted:
        return Counted(plain(other) - self.value)

    def __mul__(self, other: Any) -> Counted:
        Counted.multiplications += isinstance(other, Counted)
        return Counted(self.value * plain(other))

    def __truediv__(self, other: float) -> Counted:
        return Counted(self.value / other)

    def __neg__(self) -> Counted:
        return Counted(-self.value)

    def __float__(self) -> float:
        return float(self.value)

    __radd__, __rmul__ = __add__, __mul__


def plain(number: Any) -> float:
    return number.value if isinstance(number, Counted) else number


class Numbers(list):
    """A list of Counted with a short repr."""

    def __repr__(self) -> str:
        return f"<{len(self)} numbers>"


def winograd_f23() -> Iterator[Case]:
    for d, g in ((draw(4), draw(3)), (np.arange(4.0), np.array([1.0, 0.0, 0.0]))):
        want = [d[0:3] @ g, d[1:4] @ g]
        hint = "y[i] = d[i]·g[0] + d[i+1]·g[1] + d[i+2]·g[2]."
        yield Case((Numbers(map(Counted, d)), Numbers(map(Counted, g))), want, hint, most=4)


def winograd_saving() -> Iterator[Case]:
    for m, r in ((2, 3), (4, 3), (5, 3), (3, 5)):
        hint = "Directly (m·r)² multiplications a tile, this way (m + r - 1)²."
        yield Case((m, r), (m * r / (m + r - 1)) ** 2, hint)


# 7, training


def cross_entropy_gradient() -> Iterator[Case]:
    for logits in (draw(4, 10), 1000 * draw(3, 10)):
        target = np.arange(len(logits)) % 10
        loss = lambda leaf, t=target: F.cross_entropy(leaf, torch.from_numpy(t))  # noqa: E731
        hint = "(softmax - one hot) / N: the loss is the mean over the batch, and the softmax must not overflow."
        yield Case((logits, target), gradient(loss, logits, np.array(1.0)), hint)


def sgd_steps() -> Iterator[Case]:
    for momentum, decay, hint in (
        (0.0, 0.0, "w goes down by lr·g."),
        (0.9, 0.0, "torch: v = momentum·v + g, then w = w - lr·v; the first step has v = g."),
        (0.9, 0.01, "Weight decay adds decay·w to the gradient, before the momentum."),
    ):
        w, gradients, rates = draw(5), draw(3, 5), [0.1, 0.1, 0.01]
        leaf = torch.from_numpy(w.copy())
        optimizer = torch.optim.SGD([leaf], 0.1, momentum, weight_decay=decay)
        for g, lr in zip(gradients, rates, strict=True):
            optimizer.param_groups[0]["lr"] = lr
            leaf.grad = torch.from_numpy(g.copy())
            optimizer.step()
        yield Case((w, gradients, rates, momentum, decay), leaf.numpy(), hint)


# 8, the roofline


def attainable() -> Iterator[Case]:
    hint = "Whichever is lower: what the units can do, or what memory can feed them."
    for intensity in (0.25, 4.0, 5.0, 300.0):
        yield Case((intensity, 200.0, 40.0), min(200.0, intensity * 40.0), hint)


def linear_intensity() -> Iterator[Case]:
    hint = "2·N·C·F operations; x, the weights, the bias and y once each, four bytes a number."
    for n, c, f in ((1, 9216, 4096), (128, 4096, 1000), (4096, 64, 64)):
        yield Case((n, c, f), 2 * n * c * f / (4 * (n * c + c * f + f + n * f)), hint)


EXERCISES: dict[str, Callable[[], Iterator[Case]]] = {
    cases.__name__: cases
    for cases in (
        *(output_size, convolve, im2col, column_bytes, col2im, dweight, max_pool_backward, lrn, dropout, softmax),
        *(count_parameters, receptive_field, winograd_f23, winograd_saving, cross_entropy_gradient, sgd_steps),
        *(attainable, linear_intensity),
    )
}
