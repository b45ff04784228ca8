"""The directory of a zip file from a stranger."""

from __future__ import annotations

import io
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

from alexnet_np.errors import WeightsError, one_line

MAX_DIRECTORY = 4 << 20  # bytes, some 50 000 members; zipfile's own objects take a dozen times as much memory


class BoundedFile(io.FileIO):
    """What zipfile reads from: it asks at once for as many bytes as the file claims that its directory has."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise WeightsError(f"refused: a zip directory of {size} bytes, where weights take some thousand")
        return super().read(size) or b""


def directory(path: Path) -> list[ZipInfo]:
    """The members of a zip file. Raises WeightsError."""
    try:
        with BoundedFile(path) as file, ZipFile(file) as archive:
            return archive.infolist()
    except BadZipFile as error:
        raise WeightsError(f"cut short or damaged ({one_line(error)}): fetch the file again") from error
