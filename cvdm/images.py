"""One plane in, TIFF out: the images that models learn from and the reconstructions that are written.

Reading gives one two-dimensional greyscale image in the file's own units, or an ImageError that says what
was expected, what the file holds and what to do. Writing is complete or not at all (see cvdm/storage.py).

Not covered: reading stacks, time series and channels, which `cvdm.reading` opens.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from cvdm.normalisation import Pixels
from cvdm.reading.ome import ome_nodes
from cvdm.reading.opening import read_plane
from cvdm.reading.stack import Metadata, metadata_of
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
    metadata:      what else the file says of itself.
    """

    pixels: np.ndarray
    pixel_size_um: float | None
    dtype: str
    full_range: float | None
    metadata: Metadata


def read_image(source: Path | str | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image:
    """Read a two-dimensional greyscale image from a path or an open, seekable binary file.

    A stack whose other axes all have length one is a two-dimensional image. Pixels stored as "0 is white"
    are inverted, as the TIFF specification says, so that large always means bright. Raises ImageError.
    Everything else is read by `cvdm.reading.read_stack`.
    """
    with read_plane(source, max_pixels=max_pixels) as stack:
        pixels = stack.plane(0).pixels
        size = square_um(stack.pixel_size_um)
        return Image(pixels, size, stack.dtype, stack.full_range, metadata_of(stack))


def write_tiff(path: Path, pixels: np.ndarray, *, pixel_size_um: float | None = None) -> None:
    """Write one (H, W) array losslessly (zlib); the same pixels give the same bytes. Raises StorageError."""
    assert pixels.ndim == 2, pixels.shape
    with replacing(path) as temporary:
        tags = _tags(None if pixel_size_um is None else (pixel_size_um, pixel_size_um))
        tifffile.imwrite(
            temporary, pixels, compression="zlib", photometric="minisblack", metadata=None, **tags
        )


def write_ome_tiff(
    target: Path | BinaryIO,
    planes: Sequence[Mapping[str, Pixels]],
    *,
    extent: Mapping[str, int] | None = None,
    metadata: Metadata,
    annotations: Mapping[str, str],
) -> None:
    """Write named (H, W) images of one shape as the channels of a float32 OME-TIFF (axes TZCYX, shortened).

    planes:      the channels of every place along T and Z, in this order of axes; the same names everywhere.
    extent:      how many places there are along T and Z; missing axes have one.
    metadata:    facts to keep; wavelengths are one per channel, names are those of `planes`.
    annotations: become one OME MapAnnotation that `read_annotations` gives back.

    Each image is asked for its pixels band by band, so none need fit into memory; the first one twice, for
    the file's identifier. The same content gives the same bytes. Raises StorageError when a path cannot be
    written, and what an image raises.
    """
    extent = {axis: length for axis, length in (extent or {}).items() if length > 1}
    names = list(planes[0])
    ((height, width),) = {pixels.shape for pixels in planes[0].values()}
    assert len(planes) == prod(extent.values()) and set(extent) <= set("TZ"), (len(planes), extent)
    axes = "".join(axis for axis in "TZ" if axis in extent) + "CYX"
    shape = (*(extent[axis] for axis in axes[:-3]), len(names), height, width)
    values = {str(key): _xml_text(value) for key, value in annotations.items()}
    content = hashlib.sha256(repr((values, names, height, width)).encode())
    for band in _encoded(planes[0][names[0]]):
        content.update(band)
    described: dict[str, Any] = {
        "axes": axes,
        "Channel": [_described_channel(name, at, metadata) for at, name in enumerate(names)],
        "MapAnnotation": {"Namespace": ANNOTATION_NAMESPACE, "Value": values},
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, content.hexdigest())),
        **_described_image(metadata),
    }
    with ExitStack() as exits:
        place = exits.enter_context(replacing(target)) if isinstance(target, Path) else target
        try:
            tifffile.imwrite(
                place,
                (band for plane in planes for name in names for band in _encoded(plane[name])),
                shape=shape,
                dtype=STORED,
                bigtiff=4 * prod(shape) > LARGEST_TIFF,
                byteorder="<",
                ome=True,
                photometric="minisblack",
                metadata=described,
                **_tags(metadata.pixel_size_um),
            )
        except OSError as error:
            raise storage_error(error, target if isinstance(target, Path) else "the image") from error


def _described_channel(name: str, at: int, metadata: Metadata) -> dict[str, Any]:
    """OME attributes of a channel."""
    described: dict[str, Any] = {"Name": _xml_text(name)}
    wavelengths = {"Excitation": metadata.wavelengths_nm, "Emission": metadata.emission_nm}
    for kind, found in wavelengths.items():
        if found and (wavelength := found[at]) is not None:
            described |= {f"{kind}Wavelength": wavelength, f"{kind}WavelengthUnit": "nm"}
    return described


def _described_image(metadata: Metadata) -> dict[str, Any]:
    """OME attributes of an image; a date only where OME's schema would know it as one."""
    y, x = metadata.pixel_size_um or (None, None)
    lengths = {"X": x, "Y": y, "Z": metadata.z_step_um}
    described: dict[str, Any] = {}
    for axis, length in lengths.items():
        if length is not None:
            described |= {f"PhysicalSize{axis}": float(length), f"PhysicalSize{axis}Unit": "µm"}
    with suppress(ValueError):
        if metadata.acquired is not None:
            described["AcquisitionDate"] = datetime.fromisoformat(metadata.acquired).isoformat()
    return described


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


def _tags(size: tuple[float, float] | None) -> dict[str, Any]:
    """Resolution tags in pixels per centimetre, for readers that know no OME-XML; size: (y, x) in µm."""
    if size is None:
        return {}
    y, x = size
    return {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}


def _xml_text(value: object) -> str:
    """Text with the control characters that XML cannot carry shown as U+FFFD."""
    return "".join(c if c >= " " or c in "\t\n\r" else "\ufffd" for c in str(value))
