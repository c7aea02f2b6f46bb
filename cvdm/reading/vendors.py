"""Zeiss CZI, Nikon ND2 and Leica LIF files through bioio, an optional extra.

bioio's readers name the axes T, C, Z, Y, X in this order and translate the metadata to OME. They open files
by their path; what is in an upload cannot be read here.

Not covered: several scenes or mosaic tiles in one file, colour samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cvdm.errors import ImageError
from cvdm.reading.axes import Naming
from cvdm.reading.ome import ome_metadata, ome_nodes
from cvdm.reading.stack import Metadata, Origin, Stack, check_real, check_size, full_range_of
from cvdm.reading.units import length_um

MAGIC = {b"ZISRAWFILE": "CZI", b"\xda\xce\xbe\x0a": "ND2", b"\x70\x00\x00\x00": "LIF"}


def is_vendor(head: bytes) -> bool:
    """True where the first bytes are those of a microscope maker's format."""
    return head.startswith(tuple(MAGIC))


def open_vendor(origin: Origin, *, max_pixels: int, naming: Naming) -> Stack:
    """A stack from a CZI, ND2 or LIF file. Raises ImageError."""
    label, path = origin.label, origin.path
    origin.file.seek(0)
    head = origin.file.read(16)
    format_name = next(name for magic, name in MAGIC.items() if head.startswith(magic))
    if path is None:
        raise ImageError(
            f"a {format_name} file on this machine", f"{label}, an upload", "Export it as OME-TIFF with Fiji."
        )
    reader = _reader(path, format_name, label)
    if len(reader.scenes) > 1:
        raise ImageError(
            "one image in a file",
            f"{label} with {len(reader.scenes)} scenes",
            "Save each scene as its own file (Fiji: File > Import > Bio-Formats, then Save As > Tiff).",
        )
    order, lengths, dtype = str(reader.dims.order), tuple(reader.dims.shape), np.dtype(reader.dtype)
    check_real(dtype, label)
    check_size(lengths, max_pixels, label)
    axes, shape = naming(order, lengths, label)
    return Stack(
        **vars(_metadata(reader)),
        label=label,
        format=format_name,
        axes=axes,
        shape=shape,
        dtype=dtype.name,
        full_range=full_range_of(dtype),
        decode=_planes(reader, axes, shape),
        exits=origin.exits,
    )


def _reader(path: Path, format_name: str, label: str) -> Any:
    """bioio's reader of a file, from an optional package, reading single planes and not whole z-stacks."""
    planewise = ["Y", "X"]
    try:
        if format_name == "CZI":
            from bioio_czi import Reader as CziReader

            return CziReader(path, chunk_dims=planewise)
        if format_name == "ND2":
            from bioio_nd2 import Reader as Nd2Reader

            return Nd2Reader(path)
        from bioio_lif import Reader as LifReader

        return LifReader(path, chunk_dims=planewise)
    except ModuleNotFoundError as error:
        raise ImageError(
            f"the optional package bioio-{format_name.lower()} to read {format_name}",
            f"{label}, and no module {error.name}",
            'Install the extra (pip install "cvdm-platform[vendors]"), or export the file as OME-TIFF.',
        ) from error


def _planes(reader: Any, axes: str, shape: tuple[int, ...]) -> Callable[[int], np.ndarray]:
    """Planes by position, each read alone."""

    def decode(position: int) -> np.ndarray:
        place = np.unravel_index(position, shape[:-2])
        index = {axis: int(at) for axis, at in zip(axes[:-2], place, strict=True)}
        return np.asarray(reader.get_image_dask_data("YX", **index).compute())

    return decode


def _metadata(reader: Any) -> Metadata:
    """Sizes and channels from the reader; objective, wavelengths and date from OME where it can tell."""
    sizes, names = reader.physical_pixel_sizes, reader.channel_names
    y, x, z = (length_um(size, "um") for size in (sizes.Y, sizes.X, sizes.Z))
    try:
        facts = ome_metadata(ome_nodes(reader.ome_metadata.to_xml()))
    except (RuntimeError, ValueError, LookupError):  # no translation to OME, or an invalid one
        facts = Metadata()
    return replace(
        facts,
        pixel_size_um=None if y is None or x is None else (y, x),
        z_step_um=z,
        channel_names=tuple(str(name) for name in names or ()),
    )
