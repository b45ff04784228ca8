"""How names from a file appear in messages."""


def quoted(name: object, longest: int = 80) -> str:
    """`name` in quotes, on one line, without control characters, cut where it is very long."""
    text = name if isinstance(name, str) else type(name).__name__
    return repr(text if len(text) <= longest else text[:longest] + "...")


def listed(names: list[str], most: int = 20) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(quoted, names[:most])) + more
