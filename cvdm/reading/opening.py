"""Which format a file is, by its first bytes and never by its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from cvdm.errors import ImageError
from cvdm.reading.axes import Naming, name_axes, one_plane
from cvdm.reading.mrc import is_mrc, open_mrc
from cvdm.reading.ome_zarr import open_ome_zarr
from cvdm.reading.stack import Origin, Stack, damage_named
from cvdm.reading.tiff import is_tiff, open_tiff
from cvdm.reading.vendors import is_vendor, open_vendor

Source = Path | str | BinaryIO
FOREIGN_MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"PK\x03\x04": "a ZIP archive",
    b"\x89HDF": "an HDF5 file",
    b"ZISRAWFILE": "a Zeiss CZI file",
    b"\xda\xce\xbe\x0a": "a Nikon ND2 file",
    b"\x70\x00\x00\x00": "a Leica LIF file",
    b"version https://git-lfs": "a git-lfs pointer instead of the image itself",
}


@dataclass(frozen=True)
class Format:
    """A kind of file: its name, how its first bytes tell, and how it is opened."""

    name: str
    recognises: Callable[[bytes], bool]
    open: Callable[..., Stack]


FORMATS = (
    Format("TIFF", is_tiff, open_tiff),
    Format("MRC", is_mrc, open_mrc),
    Format("CZI, ND2 or LIF", is_vendor, open_vendor),
)


def read_stack(
    source: Source, *, max_pixels: int, axes: str | None = None, label: str | None = None
) -> Stack:
    """Open an image with named axes: a file, an open and seekable binary file, or an OME-Zarr folder.

    max_pixels: of all planes together; a header that claims more is refused before memory is taken.
    axes:       names for a file that names none, in the file's order, e.g. "ZYX".
    label:      what messages call the file; its name when None.

    Pixels are decoded when they are asked for, so that one plane at a time is in memory; close the stack or
    use it in a `with` block. Raises ImageError; ConfigError for axes that are none.
    """
    naming = partial(name_axes, axes=axes)
    return _open(source, max_pixels=max_pixels, naming=naming, label=label or label_of(source))


def read_plane(source: Source, *, max_pixels: int) -> Stack:
    """Open an image that is one greyscale plane, and nothing else. Raises ImageError."""
    return _open(source, max_pixels=max_pixels, naming=one_plane, label=label_of(source))


def label_of(source: Source) -> str:
    """What messages call a source."""
    return Path(source).name if isinstance(source, Path | str) else "the image"


def _open(source: Source, *, max_pixels: int, naming: Naming, label: str) -> Stack:
    if isinstance(source, Path | str) and Path(source).is_dir():
        with _named_and_closed(label) as exits:
            return open_ome_zarr(Path(source), exits, max_pixels=max_pixels, naming=naming, label=label)
    with _named_and_closed(label) as exits:
        path = Path(source) if isinstance(source, Path | str) else None
        file = exits.enter_context(path.open("rb")) if path else cast(BinaryIO, source)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(1024)
        file.seek(0)
        for kind in FORMATS:
            if kind.recognises(head):
                origin = Origin(file=file, size=size, label=label, path=path, exits=exits)
                return kind.open(origin, max_pixels=max_pixels, naming=naming)
        raise _foreign(head, label)


@contextmanager
def _named_and_closed(label: str) -> Iterator[ExitStack]:
    """Lend what will close the files; close them, and name the damage, where opening fails."""
    exits = ExitStack()
    try:
        with damage_named(label):
            yield exits
    except BaseException:
        exits.close()
        raise


def _foreign(head: bytes, label: str) -> ImageError:
    """The refusal of a file in no known format, naming what it is where the first bytes tell."""
    remedy = "Export it as TIFF, for example with Fiji (File > Save As > Tiff)."
    if not head:
        found, remedy = "an empty file", "Copy the file again; the last copy was interrupted."
    else:
        named = (name for magic, name in FOREIGN_MAGIC.items() if head.startswith(magic))
        found = next(named, "in another format")
    if is_mrc(head) or (head and label.lower().endswith(".mrc")):
        found = "an MRC file" if is_mrc(head) else "an MRC file without the mark of MRC2014"
    if "git-lfs" in found:
        remedy = "Fetch the image with `git lfs pull`."
    expected = ", ".join(kind.name for kind in FORMATS)
    return ImageError(f"a {expected} image", f"{label}, which is {found}", remedy)
