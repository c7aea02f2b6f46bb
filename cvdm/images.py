"""One plane in, TIFF out: the images that are restored and the reconstructions that are written.

Reading gives one two-dimensional greyscale image in the file's own units, or an ImageError that says what
was expected, what the file holds and what to do. Writing is complete or not at all (see cvdm/storage.py).

Not covered: stacks, time series and channels, which `cvdm.reading` opens.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from cvdm.normalisation import Pixels
from cvdm.reading.ome import ome_nodes
from cvdm.reading.opening import read_plane
from cvdm.reading.units import square_um
from cvdm.region import bands
from cvdm.storage import replacing, storage_error

ANNOTATION_NAMESPACE = "cvdm/reconstruction"
STORED = np.dtype("<f4")
LARGEST_TIFF = 2**32 - 2**25
"""Bytes of pixels that leave room for metadata; more take BigTIFF, whose addresses have 64 bits."""
MAX_PIXELS = 2**28
"""Of one image, unless a caller sets another bound."""


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


def read_image(source: Path | str | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Read a two-dimensional greyscale image from a path or an open, seekable binary file.

    A stack whose other axes all have length one is a two-dimensional image. Pixels stored as "0 is white"
    are inverted, as the TIFF specification says, so that large always means bright. Raises ImageError.
    Everything else is read by `cvdm.reading.read_stack`.
    """
    with read_plane(source, max_pixels=max_pixels) as stack:
        pixels = stack.plane(0).pixels
    return Image(pixels, square_um(stack.pixel_size_um), stack.dtype, stack.full_range)


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
    channels: Mapping[str, Pixels],
    *,
    pixel_size_um: float | None,
    annotations: Mapping[str, str],
) -> None:
    """Write named (H, W) images of one shape as the channels of a float32 OME-TIFF (axes CYX).

    Each is asked for its pixels band by band, so none need fit into memory; the first one twice, for the
    file's identifier. Annotations become one OME MapAnnotation that `read_annotations` gives back. The same
    content gives the same bytes. Raises StorageError when a path cannot be written, and what a channel
    raises.
    """
    ((height, width),) = {pixels.shape for pixels in channels.values()}
    values = {str(key): _xml_text(value) for key, value in annotations.items()}
    content = hashlib.sha256(repr((values, list(channels), height, width)).encode())
    for band in _encoded(next(iter(channels.values()))):
        content.update(band)
    metadata: dict[str, Any] = {
        "axes": "CYX",
        "Channel": {"Name": list(channels)},
        "MapAnnotation": {"Namespace": ANNOTATION_NAMESPACE, "Value": values},
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, content.hexdigest())),
    }
    if pixel_size_um is not None:
        for axis in "XY":
            metadata |= {f"PhysicalSize{axis}": float(pixel_size_um), f"PhysicalSize{axis}Unit": "µm"}
    shape = (len(channels), height, width)
    with ExitStack() as exits:
        place = exits.enter_context(replacing(target)) if isinstance(target, Path) else target
        try:
            tifffile.imwrite(
                place,
                chain.from_iterable(_encoded(pixels) for pixels in channels.values()),
                shape=shape,
                dtype=STORED,
                bigtiff=4 * prod(shape) > LARGEST_TIFF,
                byteorder="<",
                ome=True,
                photometric="minisblack",
                metadata=metadata,
                **_tags(pixel_size_um),
            )
        except OSError as error:
            raise storage_error(error, target if isinstance(target, Path) else "the image") from error


def _encoded(pixels: Pixels) -> Iterator[bytes]:
    """Band by band, as they are stored."""
    height, width = pixels.shape
    for region in bands(height, width):
        yield np.asarray(pixels[region.slices], STORED).tobytes()


def read_annotations(source: Path | str | BinaryIO) -> dict[str, str]:
    """The annotations that `write_ome_tiff` stored; empty where there are none."""
    with tifffile.TiffFile(source, _multifile=False) as tif:
        nodes = ome_nodes(tif.ome_metadata)
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
