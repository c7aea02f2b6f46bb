"""What a Zarr array must be before any of its chunks is read.

Codecs come from a list of lossless ones whose output can be bounded. That leaves out `pickle`, which would
run code out of a chunk, object arrays, filters, nested shards and storage transformers.

Sources: Zarr storage specification 2 and core specification 3.1 with its sharding-indexed codec.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import imagecodecs
import numpy as np

from cvdm.errors import ImageError
from cvdm.reading.stack import check_real

MAX_CHUNK_BYTES = 2**28
MAX_CHUNKS_PER_SHARD = 2**20
SLACK_BYTES = 2**16  # what a compressor may add to data that it cannot make smaller
COMPRESSORS = {"blosc", "zlib", "gzip", "zstd", "lz4"}
TYPES_V2 = re.compile(r"[<>|][biufc]\d{1,2}")
TYPES_V3 = re.compile(r"bool|(?:u?int|float|complex)\d{1,3}")
INDEX_ENTRY = 16  # bytes per inner chunk: offset and length
INDEX_CHECKSUM = 4
EMPTY_CHUNK = 2**64 - 1


@dataclass(frozen=True)
class ArrayHeader:
    """A checked array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]
    """What is unpacked as one piece; the inner chunk of a shard."""
    shard: tuple[int, ...]
    """What is one file; the chunk itself where there are no shards."""
    compressor: str | None
    checksum: bool
    """True where a CRC follows the compressed bytes of a chunk."""

    @property
    def chunk_bytes(self) -> int:
        return prod(self.chunk) * self.dtype.itemsize

    @property
    def chunks_per_shard(self) -> int:
        return prod(self.shard) // prod(self.chunk)

    @property
    def sharded(self) -> bool:
        return self.shard != self.chunk

    @property
    def file_limit(self) -> int:
        """Most bytes that one chunk file can have a use for."""
        return (self.chunk_bytes + SLACK_BYTES + INDEX_ENTRY) * self.chunks_per_shard


def read_array_header(raw: Mapping[str, Any], zarr_format: int, label: str) -> ArrayHeader:
    """An array's header from `.zarray` (format 2) or `zarr.json` (format 3). Raises ImageError."""
    header = _format_2(raw, label) if zarr_format == 2 else _format_3(raw, label)
    lengths = (header.shape, header.chunk, header.shard)
    if len({len(n) for n in lengths}) != 1 or min(min(n, default=0) for n in lengths) < 1:
        raise ImageError("a Zarr array with positive sizes", f"{label} with {lengths}", "Copy it again.")
    if header.chunk_bytes > MAX_CHUNK_BYTES or header.chunks_per_shard > MAX_CHUNKS_PER_SHARD:
        raise ImageError(
            f"chunks of at most {MAX_CHUNK_BYTES >> 20} MiB",
            f"{label} with chunks of {' x '.join(map(str, header.chunk))} ({header.dtype})",
            "Save it again with smaller chunks.",
        )
    return header


def check_chunk_file(data: bytes, header: ArrayHeader) -> None:
    """Raise where a chunk of a whole file would unpack to more bytes than the header says."""
    if not header.sharded:
        check_unpacked(data, header)
        return
    count = header.chunks_per_shard
    index = np.frombuffer(data[-count * INDEX_ENTRY - INDEX_CHECKSUM : -INDEX_CHECKSUM], "<u8")
    for start, size in index.reshape(count, 2).tolist():
        if start != EMPTY_CHUNK:
            check_unpacked(data[start : start + size], header)


def check_unpacked(data: bytes, header: ArrayHeader) -> None:
    """Raise where one chunk would unpack to more bytes than the header says."""
    data = data[:-INDEX_CHECKSUM] if header.checksum else data
    if header.compressor is None:
        fits = len(data) <= header.chunk_bytes
    elif header.compressor == "lz4":
        fits = len(imagecodecs.lz4_decode(data, header=True, out=header.chunk_bytes)) <= header.chunk_bytes
    else:
        decode = getattr(imagecodecs, f"{header.compressor}_decode")
        fits = len(decode(data, out=header.chunk_bytes)) <= header.chunk_bytes
    if not fits:
        raise ValueError("a chunk larger than its header says")


def _format_2(raw: Mapping[str, Any], label: str) -> ArrayHeader:
    compressor = raw.get("compressor")
    name = compressor.get("id") if compressor else None
    if name not in COMPRESSORS | {None} or raw.get("filters"):
        raise _refused_codec(label, [name, *(f.get("id") for f in raw.get("filters") or [])])
    chunk = _lengths(raw["chunks"])
    dtype = _dtype(raw["dtype"], TYPES_V2, label)
    return ArrayHeader(_lengths(raw["shape"]), dtype, chunk, chunk, name, False)


def _format_3(raw: Mapping[str, Any], label: str) -> ArrayHeader:
    grid = raw["chunk_grid"]
    if raw.get("node_type") != "array" or grid["name"] != "regular" or raw.get("storage_transformers"):
        raise ImageError("a Zarr array with a regular grid", f"{label} with {grid['name']}", "Save it again.")
    shard = _lengths(grid["configuration"]["chunk_shape"])
    codecs, chunk = raw["codecs"], shard
    if codecs and codecs[0]["name"] == "sharding_indexed":
        sharding = codecs[0]["configuration"]
        index = [codec["name"] for codec in sharding["index_codecs"]]
        at_end = sharding.get("index_location", "end") == "end"
        if len(codecs) > 1 or index != ["bytes", "crc32c"] or not at_end:
            raise _refused_codec(label, ["an unusual shard index"])
        codecs, chunk = sharding["codecs"], _lengths(sharding["chunk_shape"])
        if len(chunk) != len(shard) or any(s % max(c, 1) for s, c in zip(shard, chunk, strict=True)):
            raise ImageError("shards of whole chunks", f"{label} with {shard} of {chunk}", "Save it again.")
    names = [codec["name"] for codec in codecs]
    packing = [name for name in names if name not in ("transpose", "bytes")]
    checksum = packing[-1:] == ["crc32c"]
    packing = packing[:-1] if checksum else packing
    if "bytes" not in names or len(packing) > 1 or not set(packing) <= COMPRESSORS:
        raise _refused_codec(label, names)
    dtype = _dtype(raw["data_type"], TYPES_V3, label)
    return ArrayHeader(_lengths(raw["shape"]), dtype, chunk, shard, packing[0] if packing else None, checksum)


def _dtype(name: Any, known: re.Pattern[str], label: str) -> np.dtype:
    if not isinstance(name, str) or not known.fullmatch(name):
        raise ImageError("numbers as pixels", f"{label} with values of type {name}", "Export it as numbers.")
    dtype = np.dtype(name)
    check_real(dtype, label)
    return dtype


def _lengths(values: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(n) is int for n in values):
        raise TypeError(f"lengths {values}")
    return tuple(values)


def _refused_codec(label: str, names: Sequence[Any]) -> ImageError:
    return ImageError(
        f"no compression or one of {', '.join(sorted(COMPRESSORS))}",
        f"{label} with {', '.join(map(str, names))}",
        "Save it again with one of these and without filters.",
    )
