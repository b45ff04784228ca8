"""Sums by a binary tree over 2^n items in their order: ((0 + 1) + (2 + 3)) + ..., whoever adds them.

Floating-point sums depend on their order. This one is fixed by the number of items, so that processes which each own a
whole branch get the bits that one process gets alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


def cuts(samples: int, shards: int) -> list[int]:
    """Where the shards of a batch of `samples` begin, and where the last ends; sizes differ by one at most."""
    return [shard * samples // shards for shard in range(shards + 1)]


def fold(add: Callable[[T, T], T], items: Sequence[T]) -> T:
    """The sum of the items; of an odd number the last waits. `add` may write into its first argument."""
    while len(items) > 1:
        odd = items[len(items) // 2 * 2 :]
        items = [*(add(first, second) for first, second in zip(items[::2], items[1::2], strict=False)), *odd]
    return items[0]


class Counter(Generic[T]):
    """The same tree for items that come one after the other, of which at most n + 1 partial sums are kept at a time."""

    def __init__(self, add: Callable[[T, T], T]) -> None:
        self._add = add
        self.partial: list[tuple[int, T]] = []  # how many items each is the sum of: falling powers of two, as bits are

    def put(self, item: T) -> None:
        count = 1
        while self.partial and self.partial[-1][0] == count:
            item, count = self._add(self.partial.pop()[1], item), 2 * count
        self.partial.append((count, item))

    def total(self) -> T:
        """Of the 2^n items that were put."""
        ((_, item),) = self.partial
        return item
