"""What a plan prints: one line a step."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: str, titles: Sequence[str], rows: Sequence[Sequence[str]], foot: str, words: int = 3) -> str:
    """`head`, a line a row under `titles`, and `foot`; the first `words` columns hold words, the others numbers."""
    lines = [titles, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    cells = [
        "  ".join(
            text.ljust(width) if i < words else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([head, *(f"  {line}".rstrip() for line in cells), f"  {foot}"])


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def gigaflops(macs: int) -> str:
    """Of so many multiply-accumulates; nothing for none."""
    return f"{2e-9 * macs:.3f}" if macs else ""
