"""Where the arrays of one field of view live while it is restored: in memory, or in the files of a folder.

All are read and written region by region, and a workspace remembers how far the work has come, so whoever
works on an image need not know whether it fits into memory, or whether a part of it was done before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from cvdm.region import Region
from cvdm.storage import replacing, storage_error

PROGRESS_FILE = "progress.json"

MAPPED_PIXELS = 2**18
"""Of a file that are mapped at once, roughly: mapped pages count as this process's memory, those beside the
columns that are asked for, too."""

Write = Callable[[Region, np.ndarray], None]
"""Takes a part (h, w) of an image."""
Shape = tuple[int, int, int, int]
"""(B, C, H, W)."""


class Position(NamedTuple):
    """How far the work has come: all sweeps over the image before `sweep`, and of it all rows above `row`."""

    sweep: int
    row: int


class Planes(Protocol):
    """An array (B, C, H, W); what is read before it was written is undefined."""

    def read(self, region: Region) -> Tensor:
        """(B, C, h, w); not to be changed in place."""

    def write(self, region: Region, values: Tensor) -> None:
        """Store (B, C, h, w), which the caller no longer changes. Raises StorageError."""


class Workspace(Protocol):
    """The arrays of one field of view by name, and how far the work on them has come."""

    @property
    def position(self) -> Position:
        """The last one that was marked, and (0, 0) at first."""

    def mark(self, position: Position) -> None:
        """Everything before `position` is done and written. Raises StorageError."""

    def planes(self, name: str, shape: Shape, dtype: torch.dtype = torch.float32) -> Planes:
        """The array of that name: the one that was written under it before, if its shape is the same.

        Raises StorageError when there is no room for it.
        """


class Memory:
    """For images that fit: nothing outlives the process."""

    def __init__(self) -> None:
        self.position = Position(0, 0)

    def mark(self, position: Position) -> None:
        self.position = position

    def planes(self, name: str, shape: Shape, dtype: torch.dtype = torch.float32) -> Planes:
        return _Held(shape, dtype)


class _Held:
    def __init__(self, shape: Shape, dtype: torch.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        self._values: Tensor | None = None

    def read(self, region: Region) -> Tensor:
        assert self._values is not None, "read before it was written"
        return self._values[..., *region.slices]

    def write(self, region: Region, values: Tensor) -> None:
        if values.shape == self.shape:
            self._values = values.to(self.dtype)
            return
        if self._values is None:
            self._values = torch.empty(self.shape, dtype=self.dtype, device=values.device)
        self._values[..., *region.slices] = values


class Folder:
    """For images larger than memory, and for work that outlives its process.

    Takes up what was done in the folder for the same `identity`, a text that names everything on which the
    arrays depend; for another one it begins anew, and removes what is left of the former. Survives the
    death of its process at any moment, not the loss of power: the system writes to disk when it sees fit. One
    process at a time may use a folder.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        found = self._found()
        if found is None:
            self._clear()
            self.mark(Position(0, 0))
        else:
            self.position = found

    def mark(self, position: Position) -> None:
        content = {"identity": self.identity, "sweep": position.sweep, "row": position.row}
        with replacing(self.path / PROGRESS_FILE) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        self.position = position

    def planes(self, name: str, shape: Shape, dtype: torch.dtype = torch.float32) -> Planes:
        return _Mapped(self.path / f"{name}.planes", shape, torch.empty(0, dtype=dtype).numpy().dtype)

    def image(self, name: str, shape: tuple[int, int], fill: Callable[[Write, Path], None]) -> FileImage:
        """The image (H, W) of that name; filled at first, part by part.

        fill: calls its first argument with every part. The second names a file that it may make meanwhile.
        Raises StorageError, and what `fill` raises.
        """
        path = self.path / f"{name}.image"
        if not path.exists():
            with replacing(path) as temporary:
                planes = _Mapped(temporary, (1, 1, *shape), np.dtype(np.float32))
                fill(
                    lambda region, pixels: planes.write(region, torch.from_numpy(pixels)[None, None]),
                    self.path / f"{name}.scratch",
                )
        return FileImage(path, shape)

    def _clear(self) -> None:
        for pattern in ("*.planes", "*.image", "*.scratch", ".*.tmp"):
            for file in self.path.glob(pattern):
                file.unlink()

    def _found(self) -> Position | None:
        """None where nothing was begun, or for another identity."""
        try:
            content = json.loads((self.path / PROGRESS_FILE).read_text(encoding="utf-8"))
            if content["identity"] == self.identity:
                return Position(int(content["sweep"]), int(content["row"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None


@dataclass(frozen=True)
class FileImage:
    """An image (H, W) float32 in a file, read part by part; `cvdm.normalisation.Pixels`."""

    path: Path
    shape: tuple[int, int]

    def __getitem__(self, index: tuple[slice, slice], /) -> np.ndarray:
        rows, columns = (range(length)[part] for part, length in zip(index, self.shape, strict=True))
        found = np.empty((len(rows), len(columns)), np.float32)
        for part in _few_rows(len(rows), self.shape[1] * rows.step):
            mapped = np.memmap(self.path, np.float32, "r", shape=self.shape)
            found[part] = mapped[index][part]
        return found


class _Mapped:
    """Mapped anew for every few rows, so that no more than these stay mapped."""

    def __init__(self, path: Path, shape: Shape, dtype: np.dtype) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        size = int(np.prod(shape)) * dtype.itemsize
        try:
            with path.open("ab") as file:
                if file.tell() != size:
                    file.truncate(0)
                    # Without it a write to a full disk would not raise but kill the process.
                    os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise storage_error(error, f"{path}, {size / 2**20:.0f} MiB") from error

    def read(self, region: Region) -> Tensor:
        height, width = region.bottom - region.top, region.right - region.left
        found = np.empty((*self.shape[:2], height, width), self.dtype)
        for plane, rows in self._parts(height):
            found[plane][rows] = self._map("r")[plane][region.slices][rows]
        return torch.from_numpy(found)

    def write(self, region: Region, values: Tensor) -> None:
        given = values.cpu().numpy()
        for plane, rows in self._parts(region.bottom - region.top):
            self._map("r+")[plane][region.slices][rows] = given[plane][rows]

    def _map(self, mode: Literal["r", "r+"]) -> np.ndarray:
        return np.memmap(self.path, self.dtype, mode, shape=self.shape)

    def _parts(self, height: int) -> Iterator[tuple[tuple[int, ...], slice]]:
        """Which plane (b, c) and which of so many rows of it."""
        for plane in np.ndindex(self.shape[:2]):
            for rows in _few_rows(height, self.shape[-1]):
                yield plane, rows


def _few_rows(height: int, width: int) -> Iterator[slice]:
    """So many rows of so many pixels each, a few at a time."""
    some = max(1, MAPPED_PIXELS // width)
    for top in range(0, height, some):
        yield slice(top, top + some)
