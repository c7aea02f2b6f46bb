"""From the axes that a file states to named axes, or a refusal that says how to name them."""

from __future__ import annotations

from collections.abc import Callable

from cvdm.errors import ConfigError, ExtentError, ImageError
from cvdm.reading.stack import AXIS_WORDS, NAMED_AXES

UNNAMED = "?"
COLOUR = "S"
Extent = tuple[str, tuple[int, ...]]
Naming = Callable[[str, tuple[int, ...], str], Extent]
"""From stated axes, their lengths and the file's label to what the caller asked for; raises ImageError."""


def long_axes(axes: str, shape: tuple[int, ...]) -> Extent:
    """Axes and lengths without those of length one, Y and X excepted."""
    kept = [(axis, n) for axis, n in zip(axes, shape, strict=True) if n > 1 or axis in "YX"]
    return "".join(axis for axis, _ in kept), tuple(n for _, n in kept)


def name_axes(stated: str, shape: tuple[int, ...], label: str, axes: str | None = None) -> Extent:
    """The named axes of a file whose last two are "YX", with their lengths.

    stated: the file's letters, UNNAMED where it names none and COLOUR for colour samples.
    axes:   the caller's names for the same axes, in the same order; axes of length one may be left out.

    Raises ImageError for colour, for axes that nobody named, and where caller and file disagree; ConfigError
    where the caller's axes are no axes.
    """
    found, lengths = long_axes(stated, shape)
    extra = describe(found, lengths)
    if COLOUR in found:
        raise ImageError(
            "pixel values that are intensities",
            f"{label} with {extra}",
            "Save each colour as a channel of its own (Fiji: Image > Color > Split Channels).",
        )
    named = [axis for axis in found if axis != UNNAMED]
    if found[-2:] != "YX" or len(set(named)) != len(named):
        raise ImageError(
            "planes stored row by row", f"{label} with axes {found}", "Save it as OME-TIFF with Fiji."
        )
    if axes is not None:
        found = _as_told(found, shape, label, axes, stated)
    if not set(found) <= set(NAMED_AXES):
        raise ImageError(
            "axes with names (T, C, Z)",
            f"{label} with {extra}",
            "Save it as ImageJ TIFF or OME-TIFF with its axes named (Fiji: Image > Properties)."
            f' In Python, axes="{"TCZ"[3 - min(3, len(found) - 2) :]}YX" states an order that you know.',
        )
    return found, lengths


def one_plane(stated: str, shape: tuple[int, ...], label: str) -> Extent:
    """The axes "YX" of a file with one greyscale plane. Raises ImageError for anything else."""
    found, lengths = long_axes(stated, shape)
    if found != "YX":
        kind = ImageError if COLOUR in found else ExtentError
        raise kind(
            "one two-dimensional greyscale image",
            f"{label} with {describe(found, lengths)}",
            "Save each plane or channel as its own file (Fiji: Image > Stacks > Stack to Images).",
        )
    return found, lengths


def describe(axes: str, shape: tuple[int, ...]) -> str:
    """The axes but Y and X in words, e.g. "3 channels and 5 z-planes"."""
    words = AXIS_WORDS | {COLOUR: "colour samples", UNNAMED: "planes of an unnamed axis"}
    named = [
        f"{n} {words.get(axis, f'planes along axis {axis}')}"
        for axis, n in zip(axes, shape, strict=True)
        if axis not in "YX"
    ]
    return " and ".join(named) or f"axes {axes}"


def _as_told(found: str, shape: tuple[int, ...], label: str, axes: str, stated: str) -> str:
    """The caller's axes where they fit: as many, in order, and no other than the file's own."""
    if len(set(axes)) != len(axes) or not set(axes) <= set(NAMED_AXES) or axes[-2:] != "YX":
        raise ConfigError(
            f"axes out of {NAMED_AXES}, each once, ending in YX", repr(axes), 'Name them, e.g. axes="ZYX".'
        )
    told = axes if len(axes) == len(found) else long_axes(axes, shape)[0] if len(axes) == len(shape) else ""
    fits = len(told) == len(found) and all(
        here in (UNNAMED, there) for here, there in zip(found, told, strict=True)
    )
    if not fits:
        raise ImageError(
            f"the axes {axes}", f"{label} with axes {stated} of {shape}", "Name the file's own axes."
        )
    return told
