"""One image file restored into another, of whatever size and with whatever axes.

An image that fits is restored in memory. A larger one, and a stack, goes through a folder beside the result,
which is removed when the result is there; what an end of the process leaves in it is taken up by the next
attempt. A stack is restored place by place (`cvdm.places`), each as if it were alone with what the model sees
of it. The result lies on the grid that the model restores to: finer than the file's by the model's factor.
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
from cvdm.observation import Observation
from cvdm.places import Place, observed, places_of, restored_number
from cvdm.planes import FileImage, Folder, Write
from cvdm.posterior import CHANNELS, Posterior, posterior_of
from cvdm.reading.opening import read_stack
from cvdm.reading.selection import selected
from cvdm.reading.stack import Metadata, Stack, metadata_of
from cvdm.region import Region, bands
from cvdm.sight import Sight
from cvdm.storage import content_digest
from cvdm.suitability import Doubt, doubts_of_file, doubts_of_image, gathered

MOST_PIXELS = 2**36
"""Of one image; the disk is a closer bound."""
PIXELS_IN_MEMORY = 2**20
"""Up to which an image is restored in memory, where it takes some 100 bytes per pixel."""
DISK_BYTES = 114
"""Per pixel of the plane that is restored, in files, without its result."""
MORE_BYTES = 8
"""Per pixel of that plane for each further plane that is seen: its file, and its part of the condition."""
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
) -> tuple[Doubt, ...]:
    """Restore an image, or every plane of a stack, and write an OME-TIFF that keeps what the file says.

    Returns what speaks against the image (`cvdm.suitability`), of planes alike that of the first one; not of
    those that an earlier attempt had restored.

    The result has reconstruction, uncertainty, bounds and `maps` (out of `cvdm.posterior.maps_of`) as
    channels; of each channel of the input, or of `channels` of it (`cvdm.reading.selection`), unless the
    model sees them together and restores one. Place n of a stack, in the file's order, is drawn with
    `sampling.seed` + n, and is what that place alone with that seed comes to. folder: where the work is kept
    while it lasts, whatever the image's size; beside the result, and for a stack or a large image only, when
    it is None. seen: called with the posterior of the first plane, unless an earlier attempt had restored it.
    Raises ImageError, StorageError.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise ImageError("an output other than the input", str(target), "Choose another -o.")
    with read_stack(source, max_pixels=MOST_PIXELS) as whole:
        stack, sight = selected(whole, channels), checkpoint.sight
        places, shape = places_of(stack, sight), sight.enlarged(stack.shape)
        if folder is None and len(places) == 1 and prod(shape) * sight.channel_count <= PIXELS_IN_MEMORY:
            (observation,) = observed(stack, sight)
            posterior = posterior_of(checkpoint, observation, sampling=sampling, progress=progress)
            if seen is not None:
                seen(posterior)
            _write([posterior.channels(maps)], target, stack, sight, annotations)
            return gathered(_doubts(checkpoint, stack, source, observation))
        folder = folder or target.with_name(f".{target.name}.cvdm")
        identity = _identity(checkpoint, source, sampling, maps, channels)
        doubts: list[Doubt] = []

        def looked_at(posterior: Posterior) -> None:
            doubts.extend(_doubts(checkpoint, stack, source, posterior.view.observation))

        work = _Work(checkpoint, stack, places, sampling, maps, folder, identity, progress, seen, looked_at)
        try:
            require_room(folder, checkpoint.sight, stack.axes, stack.shape, maps)
            _write(work.restored(), target, stack, sight, annotations)
        except ImageError:  # another attempt would come to the same
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
        return gathered(doubts)


def evaluations_of(checkpoint: Checkpoint, stack: Stack, sampling: SamplingConfig) -> int:
    """How many evaluations of a tile it takes to restore a file. Raises ImageError for other channels."""
    places, shape = places_of(stack, checkpoint.sight), checkpoint.sight.enlarged(stack.shape)
    return len(places) * evaluations(checkpoint.model, shape, sampling)


def memory_bytes(checkpoint: Checkpoint, shape: tuple[int, ...], sampling: SamplingConfig) -> int:
    """About how much memory it takes at most to restore an image or stack of that shape, beyond the model."""
    denoiser = checkpoint.recipe.model.denoiser
    features = denoiser.width / denoiser.stem**2
    return working_bytes(checkpoint.model, features, checkpoint.sight.enlarged(shape), sampling)


class _Work:
    """A file on its way through a folder."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        stack: Stack,
        places: Sequence[Place],
        sampling: SamplingConfig,
        maps: Sequence[str],
        folder: Path,
        identity: str,
        progress: Progress | None,
        seen: Callable[[Posterior], None] | None,
        looked_at: Callable[[Posterior], None],
    ) -> None:
        self._checkpoint, self._stack, self._sampling = checkpoint, stack, sampling
        self._maps, self._identity, self._progress = maps, identity, progress
        self._seen, self._looked_at = seen, looked_at
        self._folder = Folder(folder, identity)
        self._places = places
        self._shape = checkpoint.sight.enlarged(stack.shape)

    def restored(self) -> list[Mapping[str, Pixels]]:
        """The channels of the result at every place along T and Z."""
        stack = self._stack
        if len(self._places) == 1:
            return [self._posterior(0, self._folder).channels(self._maps)]
        planes = [self._kept(number) for number in range(len(self._places))]
        labels = result_labels(stack, self._checkpoint.sight)
        found: dict[tuple[int, int], dict[str, Pixels]] = {}
        for place_seen, channels in zip(self._places, planes, strict=True):
            index = place_seen.index
            label = labels[index.get("C", 0)]
            place = found.setdefault((index.get("T", 0), index.get("Z", 0)), {})
            place |= {_result_name(label, name): pixels for name, pixels in channels.items()}
        return [found[place] for place in sorted(found)]

    def _kept(self, number: int) -> dict[str, Pixels]:
        """The channels of a place, in a file that stays until all places are there."""
        height, width = self._shape
        names = (*CHANNELS, *self._maps)

        def fill(write: Write, scratch: Path) -> None:
            workspace = Folder(self._folder.path / "plane", repr((self._identity, number)))
            posterior = self._posterior(number, workspace)
            for at, pixels in enumerate(posterior.channels(self._maps).values()):
                for region in bands(height, width):
                    write(_lowered(region, at * height), pixels[region.slices])

        kept = self._folder.image(f"plane-{number}", (len(names) * height, width), fill)
        return {name: _Part(kept, at * height, self._shape) for at, name in enumerate(names)}

    def _posterior(self, number: int, workspace: Folder) -> Posterior:
        place = self._places[number]
        seed = (self._sampling.seed + number) % SEEDS
        with _named(self._stack, place):
            posterior = posterior_of(
                self._checkpoint,
                self._observation(place, workspace),
                sampling=replace(self._sampling, seed=seed),
                workspace=workspace,
                progress=None if self._progress is None else partial(self._report, number),
            )
            if self._seen is not None and number == 0:
                self._seen(posterior)
            self._looked_at(posterior)
            return posterior

    def _observation(self, place: Place, workspace: Folder) -> Observation:
        """What is seen at a place, in files of the workspace, one for each plane of the stack."""
        shape = (self._stack.shape[-2], self._stack.shape[-1])
        stored = {
            position: workspace.image(f"input-{position}", shape, partial(self._stack.copy_plane, position))
            for position in sorted({position for planes in place.planes for position in planes})
        }
        channels = tuple(tuple(stored[position] for position in planes) for planes in place.planes)
        return Observation(channels, self._checkpoint.sight.factor)

    def _report(self, number: int, done: int, total: int) -> None:
        assert self._progress is not None
        self._progress(number * total + done, len(self._places) * total)


@dataclass(frozen=True)
class _Part:
    """An image (H, W) among others in a file; `cvdm.normalisation.Pixels`."""

    file: FileImage
    top: int
    shape: tuple[int, int]

    def __getitem__(self, index: tuple[slice, slice], /) -> np.ndarray:
        top, bottom, step = index[0].indices(self.shape[0])
        return self.file[slice(self.top + top, self.top + bottom, step), index[1]]


def _doubts(checkpoint: Checkpoint, stack: Stack, source: Path, seen: Observation) -> list[Doubt]:
    return doubts_of_file(checkpoint, stack, source.name, stack.axes) + doubts_of_image(
        checkpoint, seen, stack.full_range, source.name
    )


def channel_labels(stack: Stack) -> list[str]:
    """What tells the channels of a stack apart: their names where these do; "" for a single one."""
    count = dict(zip(stack.axes, stack.shape, strict=True)).get("C", 1)
    if count == 1:
        return [""]
    names = stack.channel_names
    if len(names) == count and len(set(names)) == count and all(names):
        return list(names)
    return [f"channel {number}" for number in range(count)]


def result_labels(stack: Stack, sight: Sight) -> list[str]:
    """What tells a result's channels apart: those of its input, unless the model restores one of them."""
    return [""] if sight.channels else channel_labels(stack)


def _result_name(label: str, name: str) -> str:
    return f"{label} {name}" if label else name


def _lowered(region: Region, rows: int) -> Region:
    return Region(region.top + rows, region.bottom + rows, region.left, region.right)


@contextmanager
def _named(stack: Stack, place: Place) -> Iterator[None]:
    """Say which place of a stack it is that cannot be restored."""
    try:
        yield
    except ImageError as error:
        if not place.index:
            raise
        where = ", ".join(f"{axis}={at}" for axis, at in place.index.items())
        raise ImageError(error.expected, f"at {where}: {error.actual}", error.remedy) from error


def _write(
    planes: list[Mapping[str, Pixels]],
    target: Path,
    stack: Stack,
    sight: Sight,
    annotations: Mapping[str, str],
) -> None:
    lengths = dict(zip(stack.axes, stack.shape, strict=True))
    extent = {axis: lengths[axis] for axis in "TZ" if axis in lengths}
    labels = result_labels(stack, sight)
    metadata = result_metadata(metadata_of(stack), sight, len(labels), len(planes[0]) // len(labels))
    write_ome_tiff(target, planes, extent=extent, metadata=metadata, annotations=annotations)


def result_metadata(metadata: Metadata, sight: Sight, labels: int, each: int) -> Metadata:
    """What a file says of itself, for its result, which has `each` channels for each of `labels` restored.

    Pixels are smaller by the factor; of several channels that are seen together the wavelengths of the
    restored one are kept.
    """
    at = restored_number(metadata.channel_names, sight)

    def repeated(values: tuple[float | None, ...]) -> tuple[float | None, ...]:
        if sight.channels:
            values = values[at : at + 1]
        known = values if len(values) == labels else ()
        return tuple(value for value in known for _ in range(each))

    size = metadata.pixel_size_um
    return replace(
        metadata,
        pixel_size_um=None if size is None else (size[0] / sight.factor, size[1] / sight.factor),
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
    own = (
        checkpoint.sight,
        checkpoint.normalisation,
        checkpoint.calibration,
        checkpoint.record.forward_model,
    )
    return repr((content_digest(source), weights.hexdigest(), own, sampling, tuple(maps), tuple(channels)))


def require_room(
    folder: Path, sight: Sight, axes: str, shape: tuple[int, ...], maps: Sequence[str] = ()
) -> None:
    """Refuse at once what would fail after hours. What is there of an earlier attempt counts as room.

    Raises StorageError.
    """
    taken = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    needed, free = disk_bytes(sight, axes, shape, maps), shutil.disk_usage(folder).free + taken
    if needed > free:
        raise StorageError(
            f"{needed / 2**30:.1f} GiB of disk space beside the result while an image of "
            f"{' x '.join(str(length) for length in shape)} pixels is restored",
            f"{free / 2**30:.1f} GiB",
            "Write the result to a larger disk, or crop the image.",
        )


def disk_bytes(sight: Sight, axes: str, shape: tuple[int, ...], maps: Sequence[str] = ()) -> int:
    """What restoring such an image or stack takes on disk while it lasts, its result included."""
    together = dict(zip(axes, shape, strict=True)).get("C", 1) if sight.channels else 1
    places = prod(shape[:-2]) // together
    plane, result = prod(sight.enlarged(shape)), RESULT_BYTES * (len(CHANNELS) + len(maps))
    more = MORE_BYTES * (sight.inputs - 1)
    return plane * (DISK_BYTES + more + result) + plane * (places - 1) * 2 * result
