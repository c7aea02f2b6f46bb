"""What a TIFF must be before its pixels are decoded.

Each check reads the header only, and refuses with a reason.

Compressions that state their own size inside the data (JPEG, JPEG 2000, ...) are refused because their
decoders would take that much memory whatever the header says; the ones allowed are bounded by the header.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import tifffile

from cvdm.errors import ImageError

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BOUNDED_COMPRESSIONS = {"NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "LZMA", "ZSTD"}
AXIS_WORDS = {"Z": "z-planes", "T": "time points", "C": "channels", "S": "colour samples"}
FOREIGN_MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"PK\x03\x04": "a ZIP archive",
    b"\x89HDF": "an HDF5 file",
    b"ZISRAWFILE": "a Zeiss CZI file",
    b"\xda\xce\xbe\x0a": "a Nikon ND2 file",
    b"version https://git-lfs": "a git-lfs pointer instead of the image itself",
}


def check_is_tiff(file: BinaryIO, file_size: int, label: str) -> None:
    """Refuse what is not a TIFF, naming what it is where the first bytes tell."""
    file.seek(0)
    head = file.read(212)
    file.seek(0)
    if head.startswith(TIFF_MAGIC):
        big = head[2] in b"+" or head[3] in b"+"
        first_page = head[8:16] if big else head[4:8]
        if int.from_bytes(first_page, "little" if head[:1] == b"I" else "big") >= file_size:
            raise _truncated(file_size, label)
        return
    remedy = "Export it as TIFF, for example with Fiji (File > Save As > Tiff)."
    if not head:
        found, remedy = "an empty file", "Copy the file again; the last copy was interrupted."
    else:
        named = (name for magic, name in FOREIGN_MAGIC.items() if head.startswith(magic))
        found = next(named, "in another format")
        found = "an MRC file" if head[208:212] == b"MAP " or label.lower().endswith(".mrc") else found
    if "git-lfs" in found:
        remedy = "Fetch the image with `git lfs pull`."
    raise ImageError("a TIFF image", f"{label}, which is {found}", remedy)


def check_header(tif: tifffile.TiffFile, label: str, max_pixels: int) -> None:
    """Refuse everything but one greyscale plane of bounded size, from the header alone."""
    page, series = tif.pages.first, tif.series[0]
    extent = {axis: n for axis, n in zip(series.axes, series.shape, strict=True) if n > 1 or axis in "YX"}
    extra = [f"{n} {AXIS_WORDS.get(axis, 'planes')}" for axis, n in extent.items() if axis not in "YX"]
    extra += [f"{len(tif.series)} separate images"] if len(tif.series) > 1 else []
    if extra or set(extent) != {"Y", "X"} or series.axes.count("X") != 1:
        raise ImageError(
            "one two-dimensional greyscale image",
            f"{label} with {' and '.join(extra) or f'axes {series.axes}'}",
            "Save each plane or channel as its own file (Fiji: Image > Stacks > Stack to Images).",
        )
    tile = page.tilewidth * page.tilelength if page.is_tiled else 0
    if max(series.size, tile) > max_pixels:
        raise ImageError(
            f"at most {max_pixels} pixels", f"{label} with {extent['Y']} x {extent['X']}", "Crop the image."
        )
    compression = _compression(page)
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


def check_complete(page: Any, file_size: int, label: str) -> None:
    """Refuse a file whose header promises more bytes than are there (a decoder would invent zeros)."""
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    row = -(-page.imagewidth * page.bitspersample // 8)  # bytes, rounded up
    promised = row * page.imagelength if _compression(page) == "NONE" else 1
    stored = sum(page.databytecounts)
    if not ends or max(ends) > file_size or stored < promised or 0 in page.databytecounts:
        raise _truncated(file_size, label)


def _truncated(file_size: int, label: str) -> ImageError:
    actual = f"{label}, truncated at {file_size} bytes"
    return ImageError("a complete file", actual, "Copy the file again from its source.")


def _compression(page: Any) -> str:
    """The name of the compression, "NONE" for plain pixels; its number where it has no known name."""
    try:
        return tifffile.COMPRESSION(int(page.compression)).name
    except ValueError:
        return f"compression {page.compression}"


def _is_grey_ramp(colormap: np.ndarray | None) -> bool:
    """True where a palette only tints intensities: no entry is darker than the one before."""
    return colormap is not None and bool((np.diff(colormap.astype(np.int64).sum(axis=0)) >= 0).all())
