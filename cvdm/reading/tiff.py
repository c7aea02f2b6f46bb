"""TIFF in all flavours: plain, BigTIFF, ImageJ, OME-TIFF, any byte order, tiled or in strips.

References to other files (multi-file OME-TIFF) are never followed. Pixels stored as "0 is white" are
inverted, as the TIFF specification says, so that large always means bright.

Not covered: several images in one file, colour, lossy compressions.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import tifffile

from cvdm.errors import ImageError
from cvdm.reading.axes import UNNAMED, Extent, Naming, long_axes
from cvdm.reading.stack import Decoder, FileDecoder, Origin, Stack, full_range_of, truncated
from cvdm.reading.tiff_checks import (
    check_complete,
    check_header,
    check_pages,
    compression_of,
)
from cvdm.reading.tiff_metadata import tiff_metadata

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(head: bytes) -> bool:
    """True where the first bytes are a TIFF's."""
    return head.startswith(TIFF_MAGIC)


def open_tiff(origin: Origin, *, max_pixels: int, naming: Naming) -> Stack:
    """A stack from an open TIFF file. Raises ImageError."""
    label = origin.label
    check_pages(origin)
    # _multifile=False: never follow a file's references to other files on this machine
    tif = origin.exits.enter_context(tifffile.TiffFile(origin.file, _multifile=False))
    if len(tif.series) > 1:
        raise ImageError(
            "one image in a file",
            f"{label} with {len(tif.series)} separate images",
            "Save each of them as its own file (Fiji: File > Save As > Tiff).",
        )
    if tif.is_imagej and tif.series[0].kind in ("generic", "uniform"):
        # tifffile falls back to the bare pages where ImageJ's description claims more than the file holds
        raise truncated(f"{label} with fewer planes than its description says", origin.size)
    named, shape = naming(*stated_axes(tif.series[0]), label)
    check_header(tif, label, max_pixels)
    dtype = np.dtype(tif.series[0].dtype)
    full_range = full_range_of(dtype, tif.pages.first.bitspersample)
    decode, to_file = _contiguous(origin, tif), None
    if decode is None:
        decode, to_file = _pagewise(origin, tif, shape)
    zero_is_white = tif.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if zero_is_white and (full_range is None or dtype.kind == "i"):
        raise ImageError(
            "large values to be bright", f"{label}, stored as 0-is-white", "Invert it and save it again."
        )
    return Stack(
        **vars(tiff_metadata(tif)),
        label=label,
        format=_flavour(tif),
        axes=named,
        shape=shape,
        dtype=dtype.name,
        full_range=full_range,
        decode=decode,
        decode_to_file=to_file,
        zero_is_white=zero_is_white,
        exits=origin.exits,
    )


def stated_axes(series: Any) -> Extent:
    """A series' axes and lengths; tifffile's letters for axes that the file does not name become UNNAMED."""
    return long_axes("".join(UNNAMED if axis in "IQ" else axis for axis in series.axes), series.shape)


def _flavour(tif: tifffile.TiffFile) -> str:
    if tif.is_ome:
        return "OME-TIFF"
    if tif.is_imagej:
        return "ImageJ TIFF"
    return "BigTIFF" if tif.is_bigtiff else "TIFF"


def _contiguous(origin: Origin, tif: tifffile.TiffFile) -> Decoder | None:
    """Plain planes one after another under a single page, as ImageJ writes its large stacks; else None."""
    series, page = tif.series[0], tif.pages.first
    height, width = page.imagelength, page.imagewidth
    dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
    plain = compression_of(page) == "NONE" and page.bitspersample == dtype.itemsize * 8
    if not series.is_truncated or not plain or page.is_tiled or page.shape != (height, width):
        return None
    start, size = page.dataoffsets[0], height * width * dtype.itemsize
    if start + size * (series.size // (height * width)) > origin.size:
        raise truncated(origin.label, origin.size)

    def decode(position: int) -> np.ndarray:
        origin.file.seek(start + position * size)
        return np.frombuffer(origin.file.read(size), dtype).reshape(height, width)

    return decode


def _pagewise(origin: Origin, tif: tifffile.TiffFile, shape: tuple[int, ...]) -> tuple[Decoder, FileDecoder]:
    """Planes on pages of their own, or several planes on a page (separate samples, volumes)."""
    series = tif.series[0]
    keyframe = series.keyframe
    pages: list[Any] = list(series.pages)
    planes, per_page = prod(shape[:-2]), keyframe.size // prod(shape[-2:])
    if per_page == 0 or None in pages or len(pages) * per_page != planes:
        there = (len(pages) - pages.count(None)) * per_page
        raise truncated(f"{origin.label} with {there} of {planes} planes", origin.size)
    for page in pages:
        check_complete(page, keyframe, origin)

    def decode(position: int, out: str | None = None) -> np.ndarray:
        page = pages[position // per_page].asarray(out=out)
        return page.reshape(per_page, *shape[-2:])[position % per_page]

    return decode, lambda position, file: decode(position, str(file))
