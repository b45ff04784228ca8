"""The directory of a zip file from a stranger."""

from __future__ import annotations

import io
import os
from zipfile import BadZipFile, ZipFile, ZipInfo

from alexnet_np.errors import WeightsError, one_line
from alexnet_np.weights.source import Source

MAX_DIRECTORY = 4 << 20  # bytes, some 50 000 members; zipfile's own objects take a dozen times as much memory


class ZipStream(io.RawIOBase):
    """What zipfile reads from: it asks at once for as many bytes as the file claims that its directory has."""

    def __init__(self, source: Source) -> None:
        self.source, self.place = source, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.source.size}[whence])
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.source.size - self.place)
        wanted = left if size is None or size < 0 else min(size, left)
        if max(wanted, size or 0) > MAX_DIRECTORY:
            raise WeightsError(f"refused: a zip directory of {size} bytes, where weights take some thousand")
        content = self.source.read(self.place, wanted)
        self.place += wanted
        return content


def opened(source: Source) -> ZipFile:
    """The zip file, its directory read. Raises WeightsError."""
    try:
        return ZipFile(ZipStream(source))
    except BadZipFile as error:
        raise WeightsError(f"cut short or damaged ({one_line(error)}): fetch the file again") from error


def directory(source: Source) -> list[ZipInfo]:
    """The members of a zip file. Raises WeightsError."""
    return opened(source).infolist()
