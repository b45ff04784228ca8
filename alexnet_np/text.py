"""How names from a file appear in messages, and tables in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def counted(number: int, thing: str) -> str:
    """1 channel, 3 channels, 2 classes."""
    return f"{number} {thing}{'' if number == 1 else 'es' if thing.endswith('s') else 's'}"


def quoted(name: object, longest: int = 80) -> str:
    """`name` in quotes, on one line, without control characters, cut where it is very long."""
    text = name if isinstance(name, str) else type(name).__name__
    return repr(text if len(text) <= longest else text[:longest] + "...")


def listed(names: list[str], most: int = 20) -> str:
    """The first names, each in quotes, and how many more there are."""
    return several([quoted(name) for name in names[:most]] + names[most:], most)


def several(words: Sequence[str], most: int = 20) -> str:
    """The first of what is said, as it is, and how much more there is."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int, caption: str = "") -> str:
    """A table for a notebook; the first `words` columns hold words, the others numbers. No cell is broken or cut."""

    def line(tag: str, cells: Sequence[str]) -> str:
        aligned = ("left" if i < words else "right" for i in range(len(cells)))
        styled = zip(aligned, cells, strict=True)
        return "".join(f'<{tag} style="text-align:{side};white-space:nowrap">{escape(c)}</{tag}>' for side, c in styled)

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{said}<thead><tr>{line('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def html_lines(text: str) -> str:
    """Text laid out in lines, as a notebook shows it: wider than the page it is scrolled, never broken."""
    return f'<pre style="white-space:pre;overflow-x:auto">{escape(text)}</pre>'
