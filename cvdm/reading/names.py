"""What people write: lists of names, and names of image files."""

from __future__ import annotations

ENDINGS = (".tif", ".tiff", ".mrc", ".czi", ".nd2", ".lif")
"""Of image files, in any case; an OME-Zarr is a folder."""


def listed(text: str | None) -> tuple[str, ...]:
    """What stands between commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def image_stem(name: str) -> str:
    """A file's name without the endings of an image, as in `cell.ome.zarr.zip`."""
    for ending in (".zip", ".zarr", *ENDINGS, ".ome"):  # as they follow each other
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name
