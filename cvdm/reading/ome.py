"""Facts from OME-XML: sizes, channels, objective, date.

Source: the OME data model, 2016-06 schema (PhysicalSizeX/Y/Z default to micrometres, wavelengths to
nanometres). Elements are found by their local name, so that older schemas are read too. Only the first image
is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

from cvdm.reading.stack import Metadata
from cvdm.reading.units import length_um, positive

Nodes = list[ElementTree.Element]


def ome_nodes(xml: str | None) -> Nodes:
    """All elements of an OME-XML text in document order; none where it is missing or not well-formed."""
    try:
        # expat bounds the expansion of entities since 2.4.1, and reads no external ones
        return list(ElementTree.fromstring(xml or "").iter())  # noqa: S314
    except ElementTree.ParseError:
        return []


def ome_metadata(nodes: Nodes) -> Metadata:
    """What the first image of an OME document states."""
    image = next(_named(nodes, "Image"), None)
    pixels = next(_named([] if image is None else image.iter(), "Pixels"), None)
    if image is None or pixels is None:
        return Metadata()
    y, x, z = (
        length_um(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "YXZ"
    )
    channels = list(_named(pixels, "Channel"))
    names = tuple(channel.get("Name", "") for channel in channels)
    date = next(_named(image, "AcquisitionDate"), None)
    acquired = image.get("AcquiredDate") if date is None else (date.text or "").strip()
    return Metadata(
        pixel_size_um=None if y is None or x is None else (y, x),
        z_step_um=z,
        channel_names=names if any(names) else (),
        wavelengths_nm=_wavelengths(channels, "ExcitationWavelength"),
        emission_nm=_wavelengths(channels, "EmissionWavelength"),
        numerical_aperture=_numerical_aperture(nodes, image),
        acquired=acquired or None,
    )


def _wavelengths(channels: Nodes, name: str) -> tuple[float | None, ...]:
    """One per channel, nanometres; empty where no channel states any."""
    found = [length_um(channel.get(name), channel.get(f"{name}Unit", "nm")) for channel in channels]
    in_nm = tuple(None if um is None else round(um * 1000, 3) for um in found)
    return in_nm if any(in_nm) else ()


def _numerical_aperture(nodes: Nodes, image: ElementTree.Element) -> float | None:
    """LensNA of the objective that the image refers to, or of the only one there is."""
    objectives = list(_named(nodes, "Objective"))
    settings = [*_named(image, "ObjectiveSettings"), *_named(image, "ObjectiveRef")]
    used = {setting.get("ID") for setting in settings}
    chosen = [objective for objective in objectives if objective.get("ID") in used]
    if not chosen and len(objectives) == 1:
        chosen = objectives
    return positive(chosen[0].get("LensNA")) if chosen else None


def _named(nodes: Iterable[ElementTree.Element], name: str) -> Iterator[ElementTree.Element]:
    return (node for node in nodes if node.tag.rpartition("}")[2] == name)
