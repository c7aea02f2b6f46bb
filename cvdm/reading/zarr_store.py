"""A folder as a read-only Zarr store that never leaves the folder and unpacks nothing oversized.

Headers are served from the bytes that were checked, so that they cannot change between check and use.
This module needs the extra `zarr`; nothing else imports that package.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest

from cvdm.errors import ImageError
from cvdm.reading.zarr_checks import ArrayHeader, check_chunk_file, check_unpacked
from cvdm.reading.zarr_folder import file_inside


def open_array(root: Path, path: str, header: ArrayHeader, documents: Mapping[str, bytes], label: str) -> Any:
    """The zarr.Array at a path of a folder, whose headers are the given documents."""
    zarr_format: Literal[2, 3] = 3 if f"{path}/zarr.json" in documents else 2
    store = FolderStore(root, header, documents, label)
    return zarr.open_array(store=store, path=path, mode="r", zarr_format=zarr_format)


class FolderStore(Store):
    """The files of one array."""

    def __init__(self, root: Path, header: ArrayHeader, documents: Mapping[str, bytes], label: str) -> None:
        super().__init__(read_only=True)
        self._root, self._header, self._documents, self._label = root, header, documents, label

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """A header, or the checked bytes of a chunk file; None where there is no such file."""
        data = self._document(key) if _is_header(key) else self._chunk(key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    def _document(self, key: str) -> bytes | None:
        return self._documents.get(key)

    def _chunk(self, key: str, byte_range: Any) -> bytes | None:
        path = file_inside(self._root, key, self._label)
        if path is None:
            return None
        size = path.stat().st_size
        if size > self._header.file_limit:
            raise ImageError(
                f"chunk files of at most {self._header.file_limit} bytes",
                f"{self._label} with {key} of {size} bytes",
                "Copy it again from its source.",
            )
        if byte_range is None:
            data = path.read_bytes()
            check_chunk_file(data, self._header)
            return data
        with path.open("rb") as file:
            if isinstance(byte_range, SuffixByteRequest):  # the index of a shard
                file.seek(max(size - byte_range.suffix, 0))
                return file.read()
            assert isinstance(byte_range, RangeByteRequest), byte_range
            file.seek(byte_range.start)
            data = file.read(min(byte_range.end, size) - byte_range.start)
        check_unpacked(data, self._header)
        return data

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return key in self._documents if _is_header(key) else self._chunk(key, None) is not None

    async def set(self, key: str, value: Any) -> None:
        raise AssertionError("read only")

    async def delete(self, key: str) -> None:
        raise AssertionError("read only")

    async def list(self) -> AsyncIterator[str]:
        for key in self._documents:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self._documents:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        async for key in self.list_prefix(prefix):
            yield key.removeprefix(prefix).lstrip("/").partition("/")[0]

    @property
    def supports_writes(self) -> bool:
        return False

    @property
    def supports_deletes(self) -> bool:
        return False

    @property
    def supports_listing(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self is other


def _is_header(key: str) -> bool:
    return key.rpartition("/")[2] in ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
