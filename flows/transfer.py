"""Copy, compare, link and remove images, whether they are files or folders (OME-Zarr)."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path


def copied(source: Path, target: Path) -> None:
    """Copy an image to a new place. Raises OSError."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def on_disk(path: Path) -> None:
    """Wait until an image has left the system's memory for the disk. Raises OSError."""
    for file in [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def linked(source: str, target: str) -> None:
    """Give a file a second name where the file system can, else copy it. Raises OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target, follow_symlinks=False)


def same_content(one: Path, other: Path) -> bool:
    """Whether two images are equal byte for byte, in folders file for file. Raises OSError."""
    if one.is_dir() != other.is_dir():
        return False
    if not one.is_dir():
        return filecmp.cmp(one, other, shallow=False)
    names, others = (
        sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
        for root in (one, other)
    )
    return names == others and all(filecmp.cmp(one / n, other / n, shallow=False) for n in names)


def removed(path: Path) -> None:
    """Remove an image. Raises OSError."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
