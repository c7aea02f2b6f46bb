"""Temporary files as plain streams.

tifffile takes the `name` of an open file for a path, but temporary files have a number or nothing there.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast


def plain(file: BinaryIO) -> BinaryIO:
    """The same file, seen without its name."""
    return cast(BinaryIO, _PlainStream(file))


class _PlainStream(io.RawIOBase):
    """A seekable binary file with its name hidden; closing it leaves the file open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
