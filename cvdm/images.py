"""Reading and writing microscopy images as TIFF.

Reading gives one two-dimensional greyscale image in the file's own units, or an ImageError that says what
was expected, what the file holds and what to do. Size and compression are checked in the header before any
memory is taken for pixels. Writing is complete or not at all (see cvdm/storage.py).

Not covered: stacks, time series, channels and colour (each is refused by name), formats other than TIFF, and
lossy or self-describing compressions (JPEG, JPEG 2000, ...), which change the noise that restoration relies
on and can hide their real size from the header.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from cvdm.errors import CvdmError, ImageError
from cvdm.pixel_size import ome_nodes, stated_pixel_size_um
from cvdm.storage import replacing, storage_error
from cvdm.tiff_checks import check_complete, check_header, check_is_tiff

ANNOTATION_NAMESPACE = "cvdm/reconstruction"


@dataclass(frozen=True)
class Image:
    """One two-dimensional image.

    pixels:        (H, W) float32, finite, in the file's own units.
    pixel_size_um: side of a pixel in micrometres, None where the file states none.
    dtype:         the file's type of number, e.g. "uint16".
    full_range:    largest value of an integer type (255, 65535; 1 for 1-bit), None for floating point.
    """

    pixels: np.ndarray
    pixel_size_um: float | None
    dtype: str
    full_range: float | None


def read_image(source: Path | str | BinaryIO, *, max_pixels: int = 2**28) -> Image:
    """Read a two-dimensional greyscale TIFF from a path or an open, seekable binary file.

    A stack whose other axes all have length one is a two-dimensional image. Pixels stored as "0 is white"
    are inverted, as the TIFF specification says, so that large always means bright. Raises ImageError.
    """
    label = Path(source).name if isinstance(source, Path | str) else "the image"
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(source).open("rb")) if isinstance(source, Path | str) else source
            file_size = _size_of(file)
            check_is_tiff(file, file_size, label)
            # _multifile=False: never follow a file's references to other files on this machine
            tif = stack.enter_context(tifffile.TiffFile(file, _multifile=False))
            return _decode(tif, file_size, label, max_pixels)
        except CvdmError:
            raise
        except OSError as error:
            raise ImageError(
                "an image file that can be read", f"{label}: {error.strerror or error}", "Check the path."
            ) from error
        except Exception as error:  # any: damaged files make decoders fail with errors of every class
            raise ImageError(
                "an intact TIFF image",
                f"{label}, which is damaged ({type(error).__name__}: {str(error)[:120]})",
                "Copy or export the file again from the microscope's software.",
            ) from error


def _decode(tif: tifffile.TiffFile, file_size: int, label: str, max_pixels: int) -> Image:
    page = tif.pages.first
    check_header(tif, label, max_pixels)
    check_complete(page, file_size, label)
    stored = tif.series[0].asarray()
    if not np.isrealobj(stored) or stored.dtype.kind not in "buif":
        raise ImageError(
            "real numbers as pixels", f"{label} with {stored.dtype}", "Export its magnitude or intensity."
        )
    axes = tif.series[0].axes
    stored = stored.reshape(stored.shape[axes.index("Y")], stored.shape[axes.index("X")])
    full_range = _full_range(stored.dtype, page.bitspersample)
    with np.errstate(over="ignore"):
        pixels = np.asarray(stored, dtype=np.float32)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        if full_range is None or stored.dtype.kind == "i":
            raise ImageError(
                "large values to be bright", f"{label}, stored as 0-is-white", "Invert it and save it again."
            )
        pixels = np.float32(full_range) - pixels
    if not np.isfinite(pixels).all():
        raise ImageError(
            "finite pixel values",
            f"{label} with {int((~np.isfinite(pixels)).sum())} NaN or infinite pixels",
            "Mask or replace these pixels, knowing why they are there, before restoring.",
        )
    return Image(pixels, stated_pixel_size_um(tif), stored.dtype.name, full_range)


def _full_range(dtype: np.dtype, bits: int) -> float | None:
    if dtype.kind == "f":
        return None
    return float(2 ** (bits - 1) - 1) if dtype.kind == "i" else float(2**bits - 1)


def _size_of(file: BinaryIO) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def write_tiff(path: Path, pixels: np.ndarray, *, pixel_size_um: float | None = None) -> None:
    """Write one (H, W) array losslessly (zlib); the same pixels give the same bytes. Raises StorageError."""
    assert pixels.ndim == 2, pixels.shape
    with replacing(path) as temporary:
        tags = _tags(pixel_size_um)
        tifffile.imwrite(
            temporary, pixels, compression="zlib", photometric="minisblack", metadata=None, **tags
        )


def write_ome_tiff(
    target: Path | BinaryIO,
    channels: Mapping[str, np.ndarray],
    *,
    pixel_size_um: float | None,
    annotations: Mapping[str, str],
) -> None:
    """Write named (H, W) images of one shape as the channels of a float32 OME-TIFF (axes CYX).

    Annotations become one OME MapAnnotation that `read_annotations` gives back. The same content gives the
    same bytes. Raises StorageError when a path cannot be written.
    """
    stack = np.stack([np.asarray(pixels, dtype=np.float32) for pixels in channels.values()])
    assert stack.ndim == 3, stack.shape
    values = {str(key): _xml_text(value) for key, value in annotations.items()}
    metadata: dict[str, Any] = {
        "axes": "CYX",
        "Channel": {"Name": list(channels)},
        "MapAnnotation": {"Namespace": ANNOTATION_NAMESPACE, "Value": values},
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, repr((values, stack.shape, stack.tobytes())))),
    }
    if pixel_size_um is not None:
        for axis in "XY":
            metadata |= {f"PhysicalSize{axis}": float(pixel_size_um), f"PhysicalSize{axis}Unit": "µm"}
    with ExitStack() as exits:
        place = exits.enter_context(replacing(target)) if isinstance(target, Path) else target
        try:
            tifffile.imwrite(
                place, stack, ome=True, photometric="minisblack", metadata=metadata, **_tags(pixel_size_um)
            )
        except OSError as error:
            raise storage_error(error, target if isinstance(target, Path) else "the image") from error


def read_annotations(source: Path | str | BinaryIO) -> dict[str, str]:
    """The annotations that `write_ome_tiff` stored; empty where there are none."""
    with tifffile.TiffFile(source, _multifile=False) as tif:
        nodes = ome_nodes(tif)
    ours = (node for node in nodes if node.get("Namespace") == ANNOTATION_NAMESPACE)
    return {entry.get("K", ""): entry.text or "" for node in ours for entry in node.iter() if entry.get("K")}


def _tags(pixel_size_um: float | None) -> dict[str, Any]:
    """Resolution tags in pixels per centimetre, for readers that know no OME-XML."""
    if pixel_size_um is None:
        return {}
    return {"resolution": (1e4 / pixel_size_um, 1e4 / pixel_size_um), "resolutionunit": "CENTIMETER"}


def _xml_text(value: object) -> str:
    """Text with the control characters that XML cannot carry shown as U+FFFD."""
    return "".join(c if c >= " " or c in "\t\n\r" else "\ufffd" for c in str(value))
