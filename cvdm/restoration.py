"""One image file restored into another, of whatever size and with whatever axes.

An image that fits is restored in memory. A larger one, and a stack, goes through a folder beside the result,
which is removed when the result is there; what an end of the process leaves in it is taken up by the next
attempt. A stack is restored plane by plane, each as if it were alone.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from cvdm.checkpoint import Checkpoint
from cvdm.config import SamplingConfig
from cvdm.errors import ImageError, StorageError
from cvdm.field_of_view import Progress, evaluations, working_bytes
from cvdm.images import write_ome_tiff
from cvdm.normalisation import Pixels
from cvdm.planes import FileImage, Folder, Write
from cvdm.posterior import CHANNELS, Posterior, posterior_of
from cvdm.reading.opening import read_stack
from cvdm.reading.selection import selected
from cvdm.reading.stack import Metadata, Stack, metadata_of
from cvdm.region import Region, bands
from cvdm.storage import content_digest

MOST_PIXELS = 2**36
"""Of one image; the disk is a closer bound."""
PIXELS_IN_MEMORY = 2**23
"""Up to which an image is restored in memory, where it takes some 100 bytes per pixel."""
DISK_BYTES = 114
"""Per pixel of the plane that is restored, in files, without its result."""
RESULT_BYTES = 4
"""Per pixel of a channel of the result; of a stack it is there twice, by plane and in the result."""
SEEDS = 2**63


def restore_file(
    checkpoint: Checkpoint,
    source: Path,
    target: Path,
    sampling: SamplingConfig,
    *,
    annotations: Mapping[str, str],
    maps: Sequence[str] = (),
    channels: Sequence[str] = (),
    progress: Progress | None = None,
    folder: Path | None = None,
    seen: Callable[[Posterior], None] | None = None,
) -> None:
    """Restore an image, or every plane of a stack, and write an OME-TIFF that keeps what the file says.

    The result has reconstruction, uncertainty, bounds and `maps` (out of `cvdm.posterior.maps_of`) as
    channels, of each channel of the input, or of `channels` of it (`cvdm.reading.selection`). Plane n of a
    stack, in the file's order, is drawn with `sampling.seed` + n, and is what that plane alone with that seed
    comes to. folder: where the work is kept while it lasts, whatever the image's size; beside the result, and
    for a stack or a large image only, when it is None. seen: called with the posterior of the first plane,
    unless an earlier attempt had restored it.
    Raises ImageError, StorageError.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise ImageError("an output other than the input", str(target), "Choose another -o.")
    with read_stack(source, max_pixels=MOST_PIXELS) as whole:
        stack = selected(whole, channels)
        if folder is None and stack.plane_count == 1 and prod(stack.shape) <= PIXELS_IN_MEMORY:
            pixels = stack.plane(0).pixels
            posterior = posterior_of(checkpoint, pixels, sampling=sampling, progress=progress)
            if seen is not None:
                seen(posterior)
            _write([posterior.channels(maps)], target, stack, annotations)
            return
        folder = folder or target.with_name(f".{target.name}.cvdm")
        identity = _identity(checkpoint, source, sampling, maps, channels)
        work = _Work(checkpoint, stack, sampling, maps, folder, identity, progress, seen)
        try:
            require_room(folder, stack.shape, maps)
            _write(work.restored(), target, stack, annotations)
        except ImageError:  # another attempt would come to the same
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def evaluations_of(checkpoint: Checkpoint, stack: Stack, sampling: SamplingConfig) -> int:
    """How many evaluations of a tile it takes to restore a file."""
    *_, height, width = stack.shape
    return stack.plane_count * evaluations(checkpoint.model, (height, width), sampling)


def memory_bytes(checkpoint: Checkpoint, shape: tuple[int, ...], sampling: SamplingConfig) -> int:
    """About how much memory it takes at most to restore an image or stack of that shape, beyond the model."""
    features = checkpoint.recipe.model.denoiser.width
    return working_bytes(checkpoint.model, features, (shape[-2], shape[-1]), sampling)


class _Work:
    """A file on its way through a folder."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        stack: Stack,
        sampling: SamplingConfig,
        maps: Sequence[str],
        folder: Path,
        identity: str,
        progress: Progress | None,
        seen: Callable[[Posterior], None] | None,
    ) -> None:
        self._checkpoint, self._stack, self._sampling = checkpoint, stack, sampling
        self._maps, self._identity, self._progress = maps, identity, progress
        self._seen = seen
        self._folder = Folder(folder, identity)
        self._shape = (stack.shape[-2], stack.shape[-1])

    def restored(self) -> list[Mapping[str, Pixels]]:
        """The channels of the result at every place along T and Z."""
        stack = self._stack
        if stack.plane_count == 1:
            return [self._posterior(0, self._folder).channels(self._maps)]
        planes = [self._kept(position) for position in range(stack.plane_count)]
        labels = channel_labels(stack)
        found: dict[tuple[int, int], dict[str, Pixels]] = {}
        for position, channels in enumerate(planes):
            index = stack.index(position)
            label = labels[index.get("C", 0)]
            place = found.setdefault((index.get("T", 0), index.get("Z", 0)), {})
            place |= {_result_name(label, name): pixels for name, pixels in channels.items()}
        return [found[place] for place in sorted(found)]

    def _kept(self, position: int) -> dict[str, Pixels]:
        """The channels of a plane, in a file that stays until all planes are there."""
        height, width = self._shape
        names = (*CHANNELS, *self._maps)

        def fill(write: Write, scratch: Path) -> None:
            workspace = Folder(self._folder.path / "plane", repr((self._identity, position)))
            posterior = self._posterior(position, workspace)
            for at, pixels in enumerate(posterior.channels(self._maps).values()):
                for region in bands(height, width):
                    write(_lowered(region, at * height), pixels[region.slices])

        kept = self._folder.image(f"plane-{position}", (len(names) * height, width), fill)
        return {name: _Part(kept, at * height, self._shape) for at, name in enumerate(names)}

    def _posterior(self, position: int, workspace: Folder) -> Posterior:
        stored = workspace.image("input", self._shape, partial(self._stack.copy_plane, position))
        seed = (self._sampling.seed + position) % SEEDS
        with _named(self._stack, position):
            posterior = posterior_of(
                self._checkpoint,
                stored,
                sampling=replace(self._sampling, seed=seed),
                workspace=workspace,
                progress=None if self._progress is None else partial(self._report, position),
            )
            if self._seen is not None and position == 0:
                self._seen(posterior)
            return posterior

    def _report(self, position: int, done: int, total: int) -> None:
        assert self._progress is not None
        self._progress(position * total + done, self._stack.plane_count * total)


@dataclass(frozen=True)
class _Part:
    """An image (H, W) among others in a file; `cvdm.normalisation.Pixels`."""

    file: FileImage
    top: int
    shape: tuple[int, int]

    def __getitem__(self, index: tuple[slice, slice], /) -> np.ndarray:
        top, bottom, step = index[0].indices(self.shape[0])
        return self.file[slice(self.top + top, self.top + bottom, step), index[1]]


def channel_labels(stack: Stack) -> list[str]:
    """What tells the channels of a stack apart: their names where these do; "" for a single one."""
    count = dict(zip(stack.axes, stack.shape, strict=True)).get("C", 1)
    if count == 1:
        return [""]
    names = stack.channel_names
    if len(names) == count and len(set(names)) == count and all(names):
        return list(names)
    return [f"channel {number}" for number in range(count)]


def _result_name(label: str, name: str) -> str:
    return f"{label} {name}" if label else name


def _lowered(region: Region, rows: int) -> Region:
    return Region(region.top + rows, region.bottom + rows, region.left, region.right)


@contextmanager
def _named(stack: Stack, position: int) -> Iterator[None]:
    """Say which plane of a stack it is that cannot be restored."""
    try:
        yield
    except ImageError as error:
        if stack.plane_count == 1:
            raise
        place = ", ".join(f"{axis}={at}" for axis, at in stack.index(position).items())
        raise ImageError(error.expected, f"at {place}: {error.actual}", error.remedy) from error


def _write(
    planes: list[Mapping[str, Pixels]], target: Path, stack: Stack, annotations: Mapping[str, str]
) -> None:
    lengths = dict(zip(stack.axes, stack.shape, strict=True))
    extent = {axis: lengths[axis] for axis in "TZ" if axis in lengths}
    labels = channel_labels(stack)
    metadata = result_metadata(metadata_of(stack), len(labels), len(planes[0]) // len(labels))
    write_ome_tiff(target, planes, extent=extent, metadata=metadata, annotations=annotations)


def result_metadata(metadata: Metadata, channels: int, each: int) -> Metadata:
    """What a file with so many channels says of itself, for its result, which has `each` for each of them."""

    def repeated(values: tuple[float | None, ...]) -> tuple[float | None, ...]:
        known = values if len(values) == channels else ()
        return tuple(value for value in known for _ in range(each))

    return replace(
        metadata,
        wavelengths_nm=repeated(metadata.wavelengths_nm),
        emission_nm=repeated(metadata.emission_nm),
    )


def _identity(
    checkpoint: Checkpoint,
    source: Path,
    sampling: SamplingConfig,
    maps: Sequence[str],
    channels: Sequence[str],
) -> str:
    """Names everything on which the files of the work depend."""
    weights = hashlib.sha256()
    for name, values in sorted(checkpoint.model.state_dict().items()):
        weights.update(name.encode())
        weights.update(values.cpu().numpy().tobytes())
    model = (weights.hexdigest(), checkpoint.normalisation, checkpoint.record.forward_model)
    return repr((content_digest(source), model, sampling, tuple(maps), tuple(channels)))


def require_room(folder: Path, shape: tuple[int, ...], maps: Sequence[str] = ()) -> None:
    """Refuse at once what would fail after hours. What is there of an earlier attempt counts as room.

    Raises StorageError.
    """
    taken = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    needed, free = disk_bytes(shape, maps), shutil.disk_usage(folder).free + taken
    if needed > free:
        raise StorageError(
            f"{needed / 2**30:.1f} GiB of disk space beside the result while an image of "
            f"{' x '.join(str(length) for length in shape)} pixels is restored",
            f"{free / 2**30:.1f} GiB",
            "Write the result to a larger disk, or crop the image.",
        )


def disk_bytes(shape: tuple[int, ...], maps: Sequence[str] = ()) -> int:
    """What restoring an image or stack of that shape takes on disk while it lasts, its result included."""
    plane, result = shape[-2] * shape[-1], RESULT_BYTES * (len(CHANNELS) + len(maps))
    return plane * (DISK_BYTES + result) + (prod(shape) - plane) * 2 * result
