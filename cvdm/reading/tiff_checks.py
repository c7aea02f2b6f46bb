"""What a TIFF must be before its pixels are decoded.

Each check reads headers only, and refuses with a reason.

Compressions that state their own size inside the data (JPEG, JPEG 2000, ...) are refused because their
decoders would take that much memory whatever the header says; the ones allowed are bounded by the header.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import tifffile

from cvdm.errors import ImageError
from cvdm.reading.stack import Origin, check_real, check_size, truncated

BOUNDED_COMPRESSIONS = {"NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "LZMA", "ZSTD"}
MAX_PAGES = 10**6
DESCRIPTION = 270


def check_pages(origin: Origin) -> None:
    """Refuse a chain of pages that leads beyond the end of the file (the pages there would be lost)."""
    file, size = origin.file, origin.size
    file.seek(0)
    head = file.read(16)
    order: Literal["little", "big"] = "little" if head[:1] == b"I" else "big"
    big = 43 in head[2:4]
    count_bytes, tag_bytes, offset_bytes = (8, 20, 8) if big else (2, 12, 4)
    offset = int.from_bytes(head[8:16] if big else head[4:8], order)
    seen: set[int] = set()
    while offset:
        if offset + count_bytes > size:
            raise truncated(origin.label, size)
        if offset in seen or len(seen) == MAX_PAGES:
            raise ValueError(f"page {len(seen)} leads back, or there are too many")
        seen.add(offset)
        file.seek(offset)
        tags = int.from_bytes(file.read(count_bytes), order)
        if offset + count_bytes + tags * tag_bytes + offset_bytes > size:
            raise truncated(origin.label, size)
        entries = file.read(tags * tag_bytes)
        if len(seen) == 1 and _end_of_description(entries, order, big) > size:
            raise truncated(origin.label, size)
        offset = int.from_bytes(file.read(offset_bytes), order)
    file.seek(0)


def check_header(tif: tifffile.TiffFile, label: str, max_pixels: int) -> None:
    """Refuse what are no intensities, what is too large, and what could not be decoded within bounds."""
    page, series = tif.pages.first, tif.series[0]
    check_real(np.dtype(series.dtype), label)
    check_size(_extent(series), max_pixels, label)
    if page.is_tiled:
        check_size((page.tilelength, page.tilewidth), max_pixels, f"{label}, tiles")
    compression = compression_of(page)
    if compression not in BOUNDED_COMPRESSIONS:
        raise ImageError(
            "no compression or a lossless one (LZW, Deflate, PackBits, Zstandard)",
            f"{label} with {compression}",
            "Save it again without compression; if that one is lossy, better acquire it again.",
        )
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and not _is_grey_ramp(page.colormap):
        raise ImageError(
            "pixel values that are intensities", f"{label} with a colour palette", "Save it as greyscale."
        )


def check_complete(page: Any, keyframe: Any, origin: Origin) -> None:
    """Refuse a page whose header promises more bytes than are there (a decoder would invent zeros)."""
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    row = -(-keyframe.imagewidth * keyframe.bitspersample // 8)  # bytes, rounded up
    promised = row * keyframe.imagelength if compression_of(keyframe) == "NONE" else 1
    stored = sum(page.databytecounts)
    if not ends or max(ends) > origin.size or stored < promised or 0 in page.databytecounts:
        raise truncated(origin.label, origin.size)


def _end_of_description(entries: bytes, order: str, big: bool) -> int:
    """Where the text ends that names axes and sizes; 0 where a page has none or holds it in its entry."""
    word = "u8" if big else "u4"
    layout = np.dtype([("code", "u2"), ("type", "u2"), ("count", word), ("offset", word)])
    table = np.frombuffer(entries, layout.newbyteorder("<" if order == "little" else ">"))
    ends = [int(e["count"]) + int(e["offset"]) for e in table if e["code"] == DESCRIPTION and e["count"] > 8]
    return max(ends, default=0)


def compression_of(page: Any) -> str:
    """The name of the compression, "NONE" for plain pixels; its number where it has no known name."""
    try:
        return tifffile.COMPRESSION(int(page.compression)).name
    except ValueError:
        return f"compression {page.compression}"


def _extent(series: Any) -> tuple[int, ...]:
    """Lengths along the axes that are longer than one, and along Y and X."""
    return tuple(n for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX")


def _is_grey_ramp(colormap: np.ndarray | None) -> bool:
    """True where a palette only tints intensities: no entry is darker than the one before."""
    return colormap is not None and bool((np.diff(colormap.astype(np.int64).sum(axis=0)) >= 0).all())
