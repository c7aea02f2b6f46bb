"""Images of a job on their way in: brought into the archive, unpacked, and refused while that is cheap."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

from cvdm.checkpoint import Checkpoint
from cvdm.errors import ImageError, StorageError
from cvdm.images import MAX_PIXELS
from cvdm.observation import Observation
from cvdm.places import Place, observed_at, places_of, require_result
from cvdm.posterior import CHANNELS, require_familiar
from cvdm.reading import read_stack, selected
from cvdm.restoration import RESULT_BYTES, disk_bytes, evaluations_of, require_room
from cvdm.sight import Sight
from cvdm.suitability import doubts_of_file, doubts_of_image, gathered
from service.jobs.archive import Archive
from service.jobs.intake import inside, is_zip, unpack
from service.jobs.records import NewItem, Request
from service.loading import Resident
from service.schema import Order
from service.settings import Settings


@dataclass(frozen=True)
class Uploaded:
    """One file of a form."""

    name: str
    content: BinaryIO


@dataclass(frozen=True)
class Placed:
    """An image on the service's machine."""

    name: str
    """Its path in the operator's folder."""


class Arrival:
    """The images of one job to be. Calls block; one thread at a time."""

    def __init__(self, settings: Settings, archive: Archive, id: str) -> None:
        self._settings, self._archive, self._id = settings, archive, id
        self._room = settings.max_job_upload_bytes  # for what archives unpack to, all together

    def received(self, number: int, image: Uploaded | Placed) -> str:
        """Bring an image into the archive; returns its digest. Raises CvdmError."""
        if isinstance(image, Placed):
            return self._archive.link(self._id, number, inside(self._settings.import_dir, image.name))
        digest = self._archive.receive(self._id, number, image.content)
        received = self._archive.received(self._id, number)
        if is_zip(received):
            packed = received.rename(received.with_name("packed"))
            self._room = unpack(packed, received, self._room, image.name[:100] or "the archive")
            packed.unlink()
        return digest

    def examined(self, number: int, name: str, digest: str, resident: Resident, order: Order) -> NewItem:
        """Refuse at once what could not be restored later. Raises ImageError, StorageError."""
        path, checkpoint = self._archive.received(self._id, number), resident.checkpoint
        sampling = order.sampling(checkpoint.recipe.sampling)
        most, label = self._settings.max_job_pixels, name[:100] or "an image"
        with read_stack(path, max_pixels=most, label=label) as whole:
            stack = selected(whole, order.channels)
            require_result(stack, checkpoint.sight, most)
            total = evaluations_of(checkpoint, stack, sampling)
            doubts = doubts_of_file(checkpoint, stack, label, stack.axes)
            if prod(stack.shape) <= min(self._settings.max_pixels, MAX_PIXELS):
                for place in places_of(stack, checkpoint.sight):
                    seen = observed_at(stack, place, checkpoint.sight)
                    _require_familiar(checkpoint, place, seen, label)
                    doubts += doubts_of_image(checkpoint, seen, stack.full_range, label)
            axes, shape = stack.axes, stack.shape
        require_room(path.parent, checkpoint.sight, axes, shape, order.maps)
        found = gathered(doubts)
        if found and self._settings.refuse_doubtful:
            raise found[0].as_error()
        return NewItem(name, digest, axes, shape, total, tuple(doubt.as_dict() for doubt in found))

    def require_room(self, request: Request) -> None:
        """Refuse a job whose images have room each, and not together. Raises StorageError."""
        needed, free = request.disk_bytes or 0, shutil.disk_usage(self._archive.root).free
        if needed > free:
            raise StorageError(
                f"{needed / 2**20:.0f} MiB of disk space for the job's images and results",
                f"{free / 2**20:.0f} MiB",
                "Send fewer images at a time, remove jobs, or have the operator free some disk space.",
            )


def disk_bytes_of(sight: Sight, items: Sequence[NewItem], maps: Sequence[str]) -> int:
    """What a job takes on disk at most: all results, which stay, and beside them its largest image's work."""
    results = RESULT_BYTES * (len(CHANNELS) + len(maps)) * sum(sight.pixels(item.shape) for item in items)
    return results + max(disk_bytes(sight, item.axes, item.shape, maps) for item in items)


def _require_familiar(checkpoint: Checkpoint, place: Place, seen: Observation, label: str) -> None:
    """Raise ImageError, with the place, when intensities there are not the model's."""
    try:
        require_familiar(checkpoint, seen)
    except ImageError as error:
        where = "".join(f", {axis}={at}" for axis, at in place.index.items())
        raise ImageError(error.expected, f"{label}{where}: {error.actual}", error.remedy) from error
