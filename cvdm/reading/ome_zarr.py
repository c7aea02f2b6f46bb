"""OME-Zarr images, versions 0.4 (Zarr format 2) and 0.5 (Zarr format 3), at full resolution.

Source: the OME-NGFF specifications 0.4 and 0.5: "multiscales" (axes with type and unit, datasets with a
scale), "omero" (channel labels), and the layout of bioformats2raw, whose OME-XML tells the rest. Pixels are
read with the optional package `zarr`; chunks that were never written hold the array's fill value, as the
format says, and an array without a single chunk is refused.

Not covered: plates, labels, several images in one folder, zipped and remote stores, lower resolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cvdm.errors import ImageError
from cvdm.reading.axes import Naming
from cvdm.reading.ome import ome_metadata, ome_nodes
from cvdm.reading.stack import Metadata, Stack, check_size, full_range_of
from cvdm.reading.units import length_um, positive
from cvdm.reading.zarr_checks import ArrayHeader, read_array_header
from cvdm.reading.zarr_folder import as_object, read_document

SLAB_PIXELS = 2**24
VERSIONS = {2: "0.4", 3: "0.5"}


@dataclass(frozen=True)
class Level:
    """The full-resolution array of an image."""

    path: str
    """Inside the folder."""
    axes: str
    """One letter per axis."""
    header: ArrayHeader
    documents: Mapping[str, bytes]
    """The array's own headers, by their keys."""


def open_ome_zarr(root: Path, exits: ExitStack, *, max_pixels: int, naming: Naming, label: str) -> Stack:
    """A stack from an OME-Zarr folder. Raises ImageError."""
    image, attributes, zarr_format = find_image(root, label)
    multiscale = _multiscale(attributes, VERSIONS[zarr_format], label)
    level = _full_resolution(root, image, multiscale, zarr_format, label)
    check_size(level.header.shape, max_pixels, label)
    axes, shape = naming(level.axes, level.header.shape, label)
    array = _zarr_array(root, level, label)
    return Stack(
        **vars(_metadata(root, image, attributes, multiscale, label)),
        label=label,
        format=f"OME-Zarr {VERSIONS[zarr_format]}",
        axes=axes,
        shape=shape,
        dtype=level.header.dtype.name,
        full_range=full_range_of(level.header.dtype),
        decode=_slabs(array, level.header),
        exits=exits,
    )


def find_image(root: Path, label: str) -> tuple[str, Mapping[str, Any], int]:
    """Path inside the folder, OME attributes and Zarr format of its one image. Raises ImageError."""
    attributes, zarr_format = _attributes(root, "", label)
    if "bioformats2raw.layout" in attributes and "multiscales" not in attributes:
        if (root / "1").exists():
            raise ImageError("one image in a folder", f"{label} with several", f"Open {label}/0 or another.")
        attributes, zarr_format = _attributes(root, "0/", label)
        return "0/", attributes, zarr_format
    if "multiscales" not in attributes:
        kind = next((f"a {kind}" for kind in ("plate", "well") if kind in attributes), "no image of OME-Zarr")
        raise ImageError("an OME-Zarr image", f"{label}, which is {kind}", "Open the folder of one image.")
    return "", attributes, zarr_format


def _attributes(root: Path, image: str, label: str) -> tuple[Mapping[str, Any], int]:
    """OME attributes of a group, and its Zarr format."""
    group = as_object(read_document(root, f"{image}zarr.json", label))
    if group:
        return group.get("attributes", {}).get("ome", {}), 3
    return as_object(read_document(root, f"{image}.zattrs", label)), 2


def _multiscale(attributes: Mapping[str, Any], expected: str, label: str) -> Mapping[str, Any]:
    """The one multiscale of an image of a known version."""
    multiscales = attributes["multiscales"]
    if len(multiscales) != 1:
        raise ImageError("one image in a folder", f"{label} with {len(multiscales)}", "Split it.")
    version = attributes.get("version", multiscales[0].get("version", expected))
    if version != expected:
        raise ImageError(
            "OME-Zarr 0.4 or 0.5", f"{label} of version {version}", "Convert it, e.g. with bioformats2raw."
        )
    return multiscales[0]


def _full_resolution(
    root: Path, image: str, multiscale: Mapping[str, Any], zarr_format: int, label: str
) -> Level:
    path = image + str(multiscale["datasets"][0]["path"])
    names = ("zarr.json",) if zarr_format == 3 else (".zarray", ".zattrs")
    found = {f"{path}/{name}": read_document(root, f"{path}/{name}", label) for name in names}
    documents = {key: data for key, data in found.items() if data is not None}
    if f"{path}/{names[0]}" not in documents:
        raise ImageError("a complete OME-Zarr image", f"{label} without its array {path}", "Copy it again.")
    header = read_array_header(as_object(documents[f"{path}/{names[0]}"]), zarr_format, label)
    axes = [str(axis["name"]) for axis in multiscale["axes"]]
    if not set(axes) <= set("tczyx") or len(axes) != len(header.shape):
        actual = f"{label} with axes {', '.join(axes)} for {len(header.shape)} dimensions"
        raise ImageError("one axis of t, c, z, y, x per dimension", actual, "Save it with these axes.")
    if not any(entry.name not in {*names, "zarr.json"} for entry in (root / path).iterdir()):
        raise ImageError("an image with pixels", f"{label}, which has no chunks", "Copy it again.")
    return Level(path, "".join(axes).upper(), header, documents)


def _zarr_array(root: Path, level: Level, label: str) -> Any:
    try:
        from cvdm.reading.zarr_store import open_array
    except ModuleNotFoundError as error:
        raise ImageError(
            "the optional package zarr to read OME-Zarr",
            f"{label}, and no module {error.name}",
            'Install the extra: pip install "cvdm-platform[zarr]".',
        ) from error
    return open_array(root, level.path, level.header, level.documents, label)


def _slabs(array: Any, header: ArrayHeader) -> Callable[[int], np.ndarray]:
    """Planes by position; as many neighbours as share their chunks are unpacked at once, and kept."""
    *leading, height, width = header.shape
    depth = 1
    if leading:
        depth = max(1, min(header.chunk[len(leading) - 1], SLAB_PIXELS // (height * width)))
    kept: dict[tuple[int, ...], np.ndarray] = {}

    def decode(position: int) -> np.ndarray:
        if not leading:
            return np.asarray(array[:])
        *outer, inner = (int(at) for at in np.unravel_index(position, leading))
        start = inner - inner % depth
        key = (*outer, start)
        if key not in kept:
            kept.clear()
            kept[key] = np.asarray(array[(*outer, slice(start, start + depth))])
        return kept[key][inner - start]

    return decode


def _metadata(
    root: Path, image: str, attributes: Mapping[str, Any], multiscale: Mapping[str, Any], label: str
) -> Metadata:
    """Facts from the multiscale and the channels, and from bioformats2raw's OME-XML where there is one."""
    xml = read_document(root, "OME/METADATA.ome.xml", label) if image else None
    facts = ome_metadata(ome_nodes(xml.decode("utf-8", "replace") if xml else None))
    scales = _scales(multiscale)
    y, x, z = (
        next(
            (
                length_um(scale, axis.get("unit"))
                for axis, scale in zip(multiscale["axes"], scales, strict=True)
                if axis["name"] == name
            ),
            None,
        )
        for name in "yxz"
    )
    channels = attributes.get("omero", {}).get("channels", [])
    names = tuple(str(channel.get("label", "")) for channel in channels)
    return replace(
        facts,
        pixel_size_um=facts.pixel_size_um if y is None or x is None else (y, x),
        z_step_um=facts.z_step_um if z is None else z,
        channel_names=names if any(names) else facts.channel_names,
    )


def _scales(multiscale: Mapping[str, Any]) -> list[float | None]:
    """Size of a voxel along each axis: the scale of the full resolution times that of the image."""
    sources = (multiscale["datasets"][0], multiscale)
    steps = [step for source in sources for step in source.get("coordinateTransformations", [])]
    scales: list[Sequence[Any]] = [step["scale"] for step in steps if step.get("type") == "scale"]
    numbers = [[positive(scale[at]) for scale in scales] for at in range(len(multiscale["axes"]))]
    return [prod(known) if (known := [n for n in here if n is not None]) else None for here in numbers]
