"""The directory of a zip file from a stranger."""

from __future__ import annotations

from zipfile import BadZipFile, ZipFile, ZipInfo

from alexnet_np.errors import WeightsError, one_line
from alexnet_np.weights.source import Source
from alexnet_np.weights.stream import SourceFile

# Bytes that are read at once. zipfile asks for as many as the file claims that its directory has; these are some 50,000
# members, whose objects take a dozen times as much memory.
MAX_DIRECTORY = 4 << 20


def opened(source: Source) -> ZipFile:
    """The zip file, its directory read. Raises WeightsError."""
    try:
        return ZipFile(SourceFile(source, MAX_DIRECTORY))
    except BadZipFile as error:
        raise WeightsError(f"cut short or damaged ({one_line(error)}): fetch the file again") from error


def directory(source: Source) -> list[ZipInfo]:
    """The members of a zip file. Raises WeightsError."""
    return opened(source).infolist()
