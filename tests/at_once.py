"""One function in several threads."""

from collections.abc import Callable
from threading import Thread
from typing import Any


def at_once(work: Callable[[Any], None], given: Any) -> None:
    """`work` of each of `given`, each in a thread of its own, until all have ended."""
    threads = [Thread(target=work, args=(each,)) for each in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
