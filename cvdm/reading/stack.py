"""What every format is turned into: planes with named axes, and the facts that the file states.

A stack's axes are letters out of "TCZYX" (time, channel, z, row, column) in the file's own order; the last
two are always "YX", and an axis of length one is left out. A letter is there because the file or the caller
named it, never because of a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from math import prod
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO

import numpy as np

from cvdm.errors import CvdmError, ExtentError, ImageError
from cvdm.region import Region, bands

NAMED_AXES = "TCZYX"
AXIS_WORDS = {"T": "time points", "C": "channels", "Z": "z-planes"}


Decoder = Callable[[int], np.ndarray]
"""The stored (H, W) numbers of a plane, counted in the file's order."""
FileDecoder = Callable[[int, Path], np.ndarray]
"""The same, not in memory but mapped from a file that is made at the path."""
Write = Callable[[Region, np.ndarray], None]
"""Takes a part (h, w) of a plane."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """An open file that a format makes a stack of."""

    file: BinaryIO
    size: int
    """Bytes."""
    label: str
    path: Path | None
    """None for a file that the caller had opened."""
    exits: ExitStack
    """Closes what was opened."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a file says about itself; None or empty where it says nothing."""

    pixel_size_um: tuple[float, float] | None = None
    """Sides of a pixel along y and x, micrometres."""
    z_step_um: float | None = None
    """Distance of two z-planes, micrometres."""
    channel_names: tuple[str, ...] = ()
    wavelengths_nm: tuple[float | None, ...] = ()
    """Of the excitation, per channel (what a dataset card calls its wavelength)."""
    emission_nm: tuple[float | None, ...] = ()
    numerical_aperture: float | None = None
    """Of the objective."""
    acquired: str | None = None
    """Date and time of acquisition, ISO 8601."""


@dataclass(frozen=True)
class Plane:
    """One plane of a stack."""

    index: Mapping[str, int]
    """Its place along each axis but Y and X, e.g. {"T": 0, "Z": 3}; empty for a single plane."""
    pixels: np.ndarray
    """(H, W) float32, finite, in the file's own units."""


@dataclass(frozen=True, kw_only=True)
class Stack(Metadata):
    """An open image file; use it in a `with` block, or close it."""

    label: str
    """The file's name, for messages."""
    format: str
    """e.g. "OME-TIFF"."""
    axes: str
    """e.g. "CZYX"."""
    shape: tuple[int, ...]
    """One length per axis."""
    dtype: str
    """The file's type of number, e.g. "uint16"."""
    full_range: float | None
    """Largest value of an integer type (255, 65535; 1 for 1-bit), None for floating point."""
    decode: Decoder = field(repr=False, compare=False)
    decode_to_file: FileDecoder | None = field(default=None, repr=False, compare=False)
    """Of formats that can."""
    zero_is_white: bool = False
    """Whether the stored numbers are small where the image is bright; those of a plane never are."""
    exits: ExitStack = field(repr=False, compare=False)
    """What is open."""

    def planes(self) -> Iterator[Plane]:
        """Every plane in the file's order, decoded one at a time. Raises ImageError."""
        for position in range(self.plane_count):
            yield self.plane(position)

    def plane(self, position: int) -> Plane:
        """The plane at a position in the file's order. Raises ImageError."""
        index, label = self._place(position)
        return Plane(
            MappingProxyType(index), self._in_units(self._stored(position, label, self.decode), label)
        )

    def copy_plane(self, position: int, write: Write, scratch: Path) -> None:
        """Hand out a plane's pixels part by part, where they are too many for memory. Raises ImageError.

        scratch: the name of a file that may be made meanwhile. A format that cannot decode to a file needs
        memory for the stored numbers.
        """
        _, label = self._place(position)
        to_file = self.decode_to_file
        decode = self.decode if to_file is None else lambda plane: to_file(plane, scratch)
        try:
            stored = self._stored(position, label, decode)
            for region in bands(*self.shape[-2:]):
                write(region, self._in_units(stored[region.slices], label))
        finally:
            scratch.unlink(missing_ok=True)

    @property
    def pixels(self) -> np.ndarray:
        """All planes as one float32 array of `shape`; takes 4 bytes per pixel of the whole stack."""
        pixels = np.empty((self.plane_count, *self.shape[-2:]), dtype=np.float32)
        for position, plane in enumerate(self.planes()):
            pixels[position] = plane.pixels
        return pixels.reshape(self.shape)

    @property
    def plane_count(self) -> int:
        return prod(self.shape[:-2])

    def index(self, position: int) -> dict[str, int]:
        """The place along each axis but Y and X of the plane at a position in the file's order."""
        assert 0 <= position < self.plane_count, position
        place = np.unravel_index(position, self.shape[:-2])
        return {axis: int(at) for axis, at in zip(self.axes[:-2], place, strict=True)}

    def _place(self, position: int) -> tuple[dict[str, int], str]:
        """A plane's index along the axes, and what messages call it."""
        index = self.index(position)
        return index, self.label + "".join(f", {axis}={at}" for axis, at in index.items())

    def _stored(self, position: int, label: str, decode: Decoder) -> np.ndarray:
        with damage_named(label):
            stored = decode(position)
            if stored.shape != self.shape[-2:]:
                raise ValueError(f"a plane of {stored.shape}, header says {self.shape[-2:]}")
        return stored

    def _in_units(self, stored: np.ndarray, label: str) -> np.ndarray:
        """Float32, bright is large."""
        pixels = finite_float32(stored, label)
        if self.zero_is_white:
            assert self.full_range is not None
            return np.float32(self.full_range) - pixels
        return pixels

    def close(self) -> None:
        """Close the file, unless the caller had opened it."""
        self.exits.close()

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def metadata_of(stack: Stack) -> Metadata:
    """What a stack's file says of itself, without the file."""
    return Metadata(**{fact.name: getattr(stack, fact.name) for fact in fields(Metadata)})


def finite_float32(stored: np.ndarray, label: str) -> np.ndarray:
    """Stored numbers as float32. Raises ImageError where one is NaN or infinite, or too large for float32."""
    with np.errstate(over="ignore"):
        pixels = np.asarray(stored, dtype=np.float32)
    if stored.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ImageError(
            "finite pixel values",
            f"{label} with {int((~np.isfinite(pixels)).sum())} NaN or infinite pixels",
            "Mask or replace these pixels, knowing why they are there, before restoring.",
        )
    return pixels


def check_real(dtype: np.dtype, label: str) -> None:
    """Refuse complex numbers and whatever else is no intensity."""
    if dtype.kind not in "buif":
        raise ImageError(
            "real numbers as pixels", f"{label} with {dtype}", "Export its magnitude or intensity."
        )


def check_size(shape: tuple[int, ...], max_pixels: int, label: str) -> None:
    """Refuse more pixels than allowed, from the header alone."""
    if prod(shape) > max_pixels:
        extent = " x ".join(str(n) for n in shape)
        raise ExtentError(f"at most {max_pixels} pixels", f"{label} with {extent}", "Crop the image.")


def truncated(label: str, file_size: int) -> ImageError:
    """A file that ends before its header says."""
    actual = f"{label}, truncated at {file_size} bytes"
    return ImageError("a complete file", actual, "Copy the file again from its source.")


def full_range_of(dtype: np.dtype, bits: int | None = None) -> float | None:
    """Largest value of an integer type with so many bits in use; None for floating point."""
    if dtype.kind == "f":
        return None
    bits = bits or (1 if dtype.kind == "b" else dtype.itemsize * 8)
    return float(2 ** (bits - 1) - 1) if dtype.kind == "i" else float(2**bits - 1)


@contextmanager
def damage_named(label: str) -> Iterator[None]:
    """Turn whatever a decoder raises about damaged or missing bytes into an ImageError."""
    try:
        yield
    except CvdmError:
        raise
    except OSError as error:
        raise ImageError(
            "an image file that can be read", f"{label}: {error.strerror or error}", "Check the path."
        ) from error
    except Exception as error:  # any: damaged files make decoders fail with errors of every class
        raise ImageError(
            "an intact image",
            f"{label}, which is damaged ({type(error).__name__}: {str(error)[:120]})",
            "Copy or export the file again from the microscope's software.",
        ) from error
