"""What every format is turned into: planes with named axes, and the facts that the file states.

A stack's axes are letters out of "TCZYX" (time, channel, z, row, column) in the file's own order; the last
two are always "YX", and an axis of length one is left out. A letter is there because the file or the caller
named it, never because of a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO

import numpy as np

from cvdm.errors import CvdmError, ImageError

NAMED_AXES = "TCZYX"
AXIS_WORDS = {"T": "time points", "C": "channels", "Z": "z-planes"}


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
    decode: Callable[[int], np.ndarray] = field(repr=False, compare=False)
    """The stored (H, W) numbers of a plane, counted in the file's order; bright is large."""
    exits: ExitStack = field(repr=False, compare=False)
    """What is open."""

    def planes(self) -> Iterator[Plane]:
        """Every plane in the file's order, decoded one at a time. Raises ImageError."""
        for position in range(self.plane_count):
            yield self.plane(position)

    def plane(self, position: int) -> Plane:
        """The plane at a position in the file's order. Raises ImageError."""
        assert 0 <= position < self.plane_count, position
        place = np.unravel_index(position, self.shape[:-2])
        index = {axis: int(at) for axis, at in zip(self.axes[:-2], place, strict=True)}
        at = "".join(f", {axis}={at}" for axis, at in index.items())
        with damage_named(self.label + at):
            stored = self.decode(position)
            if stored.shape != self.shape[-2:]:
                raise ValueError(f"a plane of {stored.shape}, header says {self.shape[-2:]}")
        return Plane(MappingProxyType(index), finite_float32(stored, self.label + at))

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

    def close(self) -> None:
        """Close the file, unless the caller had opened it."""
        self.exits.close()

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
        raise ImageError(f"at most {max_pixels} pixels", f"{label} with {extent}", "Crop the image.")


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
