"""The pixel size that a TIFF file states, in micrometres.

Three places are asked in this order: OME-XML (PhysicalSizeX with its unit), ImageJ's description (a unit,
with the resolution tags in pixels per unit), and the plain TIFF resolution tags. The plain tags mostly carry
a print resolution (72, 96, 300 dpi, or 1/1) that some program put there by default; a microscope's pixel is
smaller than any of those, so plain tags are believed only between 1 nm and 20 um.

One number stands for both axes: when x and y differ by more than 1 % the pixel size is unknown (None).
"""

from __future__ import annotations

import math
from xml.etree import ElementTree

import tifffile

UM_PER_UNIT = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "µm": 1.0,  # micro sign
    "μm": 1.0,  # Greek mu
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "nm": 1e-3,
    "å": 1e-4,
    "pm": 1e-6,
    "inch": 25400.0,
    "in": 25400.0,
}
PLAUSIBLE_UM = (1e-3, 20.0)  # for plain resolution tags only


def stated_pixel_size_um(tif: tifffile.TiffFile) -> float | None:
    """The pixel size that the file states in micrometres, or None where it states none."""
    if tif.is_ome:
        return _from_ome(ome_nodes(tif))
    if tif.is_imagej and tif.imagej_metadata:
        unit = tif.imagej_metadata.get("unit")
        return _from_resolution(tif, UM_PER_UNIT.get(_plain_unit(unit)))
    tag = tif.pages.first.tags.get("ResolutionUnit")
    unit = {2: "inch", 3: "cm"}.get(int(tag.value)) if tag is not None else None
    size = _from_resolution(tif, UM_PER_UNIT[unit] if unit else None)
    return size if size is not None and PLAUSIBLE_UM[0] <= size <= PLAUSIBLE_UM[1] else None


def ome_nodes(tif: tifffile.TiffFile) -> list[ElementTree.Element]:
    """All elements of the file's OME-XML in document order; none where it has no readable OME-XML."""
    try:
        # expat bounds the expansion of entities since 2.4.1, and reads no external ones
        return list(ElementTree.fromstring(tif.ome_metadata or "").iter())  # noqa: S314
    except ElementTree.ParseError:
        return []


def _from_ome(nodes: list[ElementTree.Element]) -> float | None:
    """PhysicalSizeX and Y of the first image; OME's default unit is the micrometre."""
    pixels = next((node for node in nodes if node.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return None
    sizes = []
    for axis in ("X", "Y"):
        scale = UM_PER_UNIT.get(_plain_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
        value = _number(pixels.get(f"PhysicalSize{axis}"))
        sizes.append(None if scale is None or value is None else scale * value)
    return _square(sizes[0], sizes[1])


def _from_resolution(tif: tifffile.TiffFile, um_per_unit: float | None) -> float | None:
    """The pixel size from XResolution and YResolution, which count pixels per unit."""
    if um_per_unit is None:
        return None
    sizes: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        tag = tif.pages.first.tags.get(name)
        numerator, denominator = tag.value if tag is not None else (0, 0)
        sizes.append(um_per_unit * denominator / numerator if numerator and denominator else None)
    return _square(sizes[0], sizes[1])


def _square(x: float | None, y: float | None) -> float | None:
    """The common size of both axes, or None when one is unknown or they differ."""
    if x is None or y is None or not (math.isfinite(x) and x > 0 and math.isclose(x, y, rel_tol=0.01)):
        return None
    return x


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _plain_unit(unit: object) -> str:
    """A unit's name in lower case; ImageJ writes the micro sign as the six characters \\u00B5."""
    return str(unit or "").replace("\\u00B5", "µ").strip().lower()
