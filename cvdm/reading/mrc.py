"""MRC images: the MRC2014 standard, and the pixel size of its DeltaVision/Priism dialect.

Source: Cheng et al., "MRC2014: Extensions to the MRC format header for electron cryo-microscopy and
tomography", J. Struct. Biol. 192 (2015) 146-150. The 1024-byte header is words of four bytes: 1-3 columns,
rows, sections; 4 mode; 8-10 sampling; 11-13 cell size in angstrom; 17-19 order of the axes; 23 kind of
volume; 24 bytes of extended header; 53 "MAP "; 54 machine stamp. Optical microscopes write a dialect
(DeltaVision, Priism, and the BioSR data) that marks itself with -16224 in the 25th word and puts the size of
one voxel in micrometres where MRC2014 has the size of the whole cell.

The package `mrcfile` was tried: it reads whole files only, and takes the dialect's sizes for angstroms.

Not covered: complex (3, 4) and 4-bit (101) modes, permuted axes, extended headers, compressed files. Rows are
read in the file's order; the standard counts them from the bottom, which no optical microscope does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod

import numpy as np

from cvdm.errors import ImageError
from cvdm.reading.axes import UNNAMED, Naming
from cvdm.reading.stack import Origin, Stack, check_size, full_range_of, truncated
from cvdm.reading.units import length_um

HEADER = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
OTHER_MODES = {3: "complex int16", 4: "complex64", 101: "4-bit"}
VOLUME = 1
DIALECT = -16224


@dataclass(frozen=True)
class Header:
    """The words of an MRC header that matter here."""

    order: str
    """"<" or ">"."""
    shape: tuple[int, int, int]
    """Sections, rows, columns."""
    mode: int
    sampling: tuple[int, int, int]
    """Along x, y, z."""
    cell: tuple[float, float, float]
    """Along x, y, z: angstrom of the cell, or micrometres of a voxel in the dialect."""
    axes: tuple[int, int, int]
    volume: int
    extended: int
    dialect: bool


def is_mrc(head: bytes) -> bool:
    """True where the first bytes are an MRC header's."""
    return head[208:212] in (b"MAP ", b"MAP\0")


def open_mrc(origin: Origin, *, max_pixels: int, naming: Naming) -> Stack:
    """A stack from an open MRC file. Raises ImageError."""
    file, label = origin.file, origin.label
    file.seek(0)
    header = read_header(file.read(HEADER), origin.size, label)
    check_size(header.shape, max_pixels, label)
    dtype = np.dtype(header.order + MODES[header.mode])
    start = HEADER + header.extended
    if start + prod(header.shape) * dtype.itemsize > origin.size:
        raise truncated(label, origin.size)
    stated = ("Z" if header.volume == VOLUME else UNNAMED) + "YX"
    named, shape = naming(stated, header.shape, label)
    plane = shape[-2] * shape[-1] * dtype.itemsize

    def decode(position: int) -> np.ndarray:
        file.seek(start + position * plane)
        return np.frombuffer(file.read(plane), dtype).reshape(shape[-2:])

    x, y, z = voxel_um(header)
    return Stack(
        label=label,
        format="MRC",
        axes=named,
        shape=shape,
        dtype=dtype.name,
        full_range=full_range_of(dtype),
        decode=decode,
        exits=origin.exits,
        pixel_size_um=None if y is None or x is None else (y, x),
        z_step_um=z if "Z" in named else None,
    )


def read_header(head: bytes, file_size: int, label: str) -> Header:
    """The header's words, checked. Raises ImageError."""
    if len(head) < HEADER:
        raise truncated(label, file_size)
    known = [o for o in _orders(head) if _mode(head, o) in MODES | OTHER_MODES]
    order = next((o for o in known if _axes_in_range(head, o)), known[0] if known else None)
    if order is None:
        found = f"{label} with mode {_mode(head, '<')}"
        raise ImageError("an MRC file of a known mode", found, "Export it as TIFF.")
    word = struct.unpack(f"{order}256i", head)
    real = struct.unpack(f"{order}256f", head)
    halves = struct.unpack(f"{order}2h", head[96:100])
    header = Header(
        order=order,
        shape=(word[2], word[1], word[0]),
        mode=word[3],
        sampling=word[7:10],
        cell=real[10:13],
        axes=word[16:19],
        volume=word[22],
        extended=word[23],
        dialect=DIALECT in halves,
    )
    if header.mode not in MODES:
        raise ImageError(
            "real numbers as pixels", f"{label} with {OTHER_MODES[header.mode]} pixels", "Export it as TIFF."
        )
    if min(header.shape) < 1 or header.extended < 0:
        raise ImageError(
            "an MRC file with positive sizes", f"{label} with {header.shape}", "Copy the file again."
        )
    if header.axes not in ((1, 2, 3), (0, 0, 0)):
        raise ImageError("planes stored row by row", f"{label} with axes {header.axes}", "Export it as TIFF.")
    return header


def voxel_um(header: Header) -> tuple[float | None, float | None, float | None]:
    """Size of a voxel along x, y and z in micrometres; None where the header has no positive one."""
    if header.dialect:
        x, y, z = (length_um(size, "um") for size in header.cell)
        return x, y, z
    sizes = (size / n if n > 0 else 0.0 for size, n in zip(header.cell, header.sampling, strict=True))
    x, y, z = (length_um(size, "angstrom") for size in sizes)
    return x, y, z


def _orders(head: bytes) -> str:
    """Byte orders to try: as the machine stamp says, then the other (old writers leave it blank)."""
    return "><" if head[212:214] == b"\x11\x11" else "<>"


def _mode(head: bytes, order: str) -> int:
    return int(struct.unpack(f"{order}i", head[12:16])[0])


def _axes_in_range(head: bytes, order: str) -> bool:
    """True where the order of the axes makes sense; mode 0 reads the same in both byte orders."""
    return all(0 <= axis <= 3 for axis in struct.unpack(f"{order}3i", head[64:76]))
