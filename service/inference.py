"""From the bytes of a TIFF to the bytes of an OME-TIFF with its uncertainty. Knows no web framework.

The reply is written to an unnamed temporary file: it needs no memory while a client downloads it slowly,
and the system removes it with its last reader.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

from cvdm.config import SamplingConfig
from cvdm.errors import ExtentError
from cvdm.field_of_view import Progress
from cvdm.images import write_ome_tiff
from cvdm.places import read_seen
from cvdm.posterior import maps_of, posterior_of
from cvdm.restoration import result_metadata
from cvdm.sight import Sight
from cvdm.suitability import Doubt, doubts_of_file, doubts_of_image
from service.loading import Resident
from service.schema import Order, Provenance, require_maps
from service.streams import plain
from service.watching.observation import Sample, sample_of


@dataclass(frozen=True)
class Answer:
    """A finished reply."""

    file: BinaryIO
    """The OME-TIFF, at its beginning; reconstruction, uncertainty_std, lower, upper, and maps."""
    size: int
    """Its bytes."""
    provenance: Provenance
    doubts: tuple[Doubt, ...]
    """What speaks against the image, which was restored nevertheless."""
    sample: Sample
    """What is looked at of it, for signs of drift."""

    def headers(self) -> dict[str, str]:
        """For the HTTP reply."""
        told = " | ".join(f"expected {d.expected}; got {d.actual}. {d.remedy}" for d in self.doubts)
        warnings = {"x-cvdm-warnings": told.encode("ascii", "replace").decode()} if told else {}
        return self.provenance.headers() | warnings


def check_image(file: BinaryIO, sight: Sight, max_pixels: int) -> int:
    """Refuse at once what could not be restored later; returns its pixels, on the result's grid.

    Raises ImageError.
    """
    try:
        seen = read_seen(plain(file), sight, max_pixels=max_pixels).observation
    except ExtentError as error:
        remedy = f"Send stacks and large images to POST /jobs, or: {error.remedy}"
        raise ExtentError(error.expected, error.actual, remedy) from error
    return sight.channel_count * prod(seen.shape)


def restore(
    resident: Resident, file: BinaryIO, order: Order, max_pixels: int, strict: bool, progress: Progress
) -> Answer:
    """Restore the uploaded image with one model.

    Raises ImageError, ParameterError; `progress` may raise to cancel.

    strict: refuse an image about which there are doubts.
    The file is decoded here and not when it arrived, so that requests wait on disk and not in memory.
    """
    checkpoint, label = resident.checkpoint, "the image"
    require_maps(order, maps_of(checkpoint), resident.version.label)
    image = read_seen(plain(file), checkpoint.sight, max_pixels=max_pixels)
    doubts = (
        *doubts_of_file(checkpoint, image.metadata, label, image.axes),
        *doubts_of_image(checkpoint, image.observation, image.full_range, label),
    )
    if strict and doubts:
        raise doubts[0].as_error()
    sampling = order.sampling(resident.checkpoint.recipe.sampling)
    posterior = posterior_of(checkpoint, image.observation, sampling=sampling, progress=progress)
    channels = posterior.channels(order.maps)
    provenance = provenance_of(resident, sampling, sha256_of(file), order.maps)
    reply = tempfile.TemporaryFile(prefix="cvdm-")  # noqa: SIM115 - lives until the client has read it
    write_ome_tiff(
        plain(reply),
        [channels],
        metadata=result_metadata(image.metadata, checkpoint.sight, 1, len(channels)),
        annotations=provenance.annotations(),
    )
    size = reply.seek(0, os.SEEK_END)
    reply.seek(0)
    return Answer(reply, size, provenance, doubts, sample_of(posterior))


def provenance_of(
    resident: Resident,
    sampling: SamplingConfig,
    input_sha256: str,
    maps: Sequence[str] = (),
    channels: Sequence[str] = (),
) -> Provenance:
    """What made an answer."""
    version = resident.version
    return Provenance(
        model=version.model,
        version=version.number,
        run_id=version.run_id,
        reconstruction=resident.checkpoint.annotations(sampling),
        input_sha256=input_sha256,
        maps=tuple(maps),
        channels=tuple(channels),
    )


def sha256_of(file: BinaryIO) -> str:
    """SHA-256 of a whole open file, hexadecimal."""
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()
