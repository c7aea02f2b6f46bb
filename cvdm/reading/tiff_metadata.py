"""What a TIFF file states about pixel size, channels and acquisition.

Three places are asked in this order: OME-XML, ImageJ's description (a unit, with the resolution tags in
pixels per unit, and the spacing of z), and the plain TIFF tags. The plain resolution tags mostly carry a
print resolution (72, 96, 300 dpi, or 1/1) that some program put there by default; a microscope's pixel is
smaller than any of those, so plain tags are believed only between 1 nm and 20 um.
"""

from __future__ import annotations

from datetime import datetime

import tifffile

from cvdm.reading.ome import ome_metadata, ome_nodes
from cvdm.reading.stack import Metadata
from cvdm.reading.units import UM_PER_UNIT, length_um, um_per_unit

PLAUSIBLE_UM = (1e-3, 20.0)  # for plain resolution tags only


def tiff_metadata(tif: tifffile.TiffFile) -> Metadata:
    """Facts of an open TIFF file."""
    if tif.is_ome:
        return ome_metadata(ome_nodes(tif.ome_metadata))
    if tif.is_imagej and tif.imagej_metadata:
        stated = tif.imagej_metadata
        return Metadata(
            pixel_size_um=_from_resolution(tif, um_per_unit(stated.get("unit"))),
            z_step_um=length_um(stated.get("spacing"), stated.get("unit")),
            acquired=_date_time(tif),
        )
    tag = tif.pages.first.tags.get("ResolutionUnit")
    unit = {2: "inch", 3: "cm"}.get(int(tag.value)) if tag is not None else None
    size = _from_resolution(tif, UM_PER_UNIT[unit] if unit else None)
    plausible = size is not None and all(PLAUSIBLE_UM[0] <= side <= PLAUSIBLE_UM[1] for side in size)
    return Metadata(pixel_size_um=size if plausible else None, acquired=_date_time(tif))


def _from_resolution(tif: tifffile.TiffFile, um_per_unit: float | None) -> tuple[float, float] | None:
    """The pixel size (y, x) from YResolution and XResolution, which count pixels per unit."""
    if um_per_unit is None:
        return None
    sizes = []
    for name in ("YResolution", "XResolution"):
        tag = tif.pages.first.tags.get(name)
        numerator, denominator = tag.value if tag is not None else (0, 0)
        if not (numerator and denominator):
            return None
        sizes.append(um_per_unit * denominator / numerator)
    return sizes[0], sizes[1]


def _date_time(tif: tifffile.TiffFile) -> str | None:
    """The DateTime tag, "the date and time of image creation", in ISO 8601."""
    tag = tif.pages.first.tags.get("DateTime")
    try:
        return datetime.strptime(str(tag.value), "%Y:%m:%d %H:%M:%S").isoformat() if tag else None
    except ValueError:
        return None
