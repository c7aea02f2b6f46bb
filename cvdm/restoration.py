"""One image file restored into another, of whatever size.

An image that fits is restored in memory. A larger one goes through a folder beside the result, which is
removed when the result is there; what an end of the process leaves in it is taken up by the next attempt.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cvdm.checkpoint import Checkpoint
from cvdm.config import SamplingConfig
from cvdm.errors import ImageError, StorageError
from cvdm.field_of_view import Progress
from cvdm.images import write_ome_tiff
from cvdm.planes import Folder
from cvdm.posterior import Posterior, posterior_of
from cvdm.reading.opening import read_plane
from cvdm.reading.stack import Stack
from cvdm.reading.units import square_um

MOST_PIXELS = 2**36
"""Of one image; the disk is a closer bound."""
PIXELS_IN_MEMORY = 2**23
"""Up to which an image is restored in memory, where it takes some 100 bytes per pixel."""
DISK_BYTES = 130
"""Per pixel of an image that goes through files, with its result."""


def restore_file(
    checkpoint: Checkpoint,
    source: Path,
    target: Path,
    sampling: SamplingConfig,
    *,
    annotations: Mapping[str, str],
    progress: Progress | None = None,
    folder: Path | None = None,
) -> None:
    """Restore a two-dimensional image and write reconstruction, uncertainty and bounds as OME-TIFF.

    The result has a pixel size where the input has one. folder: where the work is kept while it lasts,
    whatever the image's size; beside the result, and for a large image only, when it is None.
    Raises ImageError, StorageError.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise ImageError("an output other than the input", str(target), "Choose another -o.")
    with read_plane(source, max_pixels=MOST_PIXELS) as image:
        height, width = image.shape
        if folder is None and height * width <= PIXELS_IN_MEMORY:
            pixels = image.plane(0).pixels
            posterior = posterior_of(checkpoint, pixels, sampling=sampling, progress=progress)
            _write(posterior, target, image, annotations)
            return
        folder = folder or target.with_name(f".{target.name}.cvdm")
        workspace = Folder(folder, _identity(checkpoint, source, sampling))
        try:
            require_room(folder, height * width)
            stored = workspace.image("input", (height, width), partial(image.copy_plane, 0))
            posterior = posterior_of(
                checkpoint, stored, sampling=sampling, workspace=workspace, progress=progress
            )
            _write(posterior, target, image, annotations)
        except ImageError:  # another attempt would come to the same
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def _write(posterior: Posterior, target: Path, image: Stack, annotations: Mapping[str, str]) -> None:
    write_ome_tiff(
        target, posterior.channels(), pixel_size_um=square_um(image.pixel_size_um), annotations=annotations
    )


def _identity(checkpoint: Checkpoint, source: Path, sampling: SamplingConfig) -> str:
    """Names everything on which the draws depend."""
    with source.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    weights = hashlib.sha256()
    for name, values in sorted(checkpoint.model.state_dict().items()):
        weights.update(name.encode())
        weights.update(values.cpu().numpy().tobytes())
    return repr((content, weights.hexdigest(), checkpoint.normalisation, sampling))


def require_room(folder: Path, pixels: int) -> None:
    """Refuse at once what would fail after hours. What is there of an earlier attempt counts as room.

    Raises StorageError.
    """
    taken = sum(file.stat().st_size for file in folder.iterdir())
    needed, free = pixels * DISK_BYTES, shutil.disk_usage(folder).free + taken
    if needed > free:
        raise StorageError(
            f"{needed / 2**30:.0f} GiB of disk space beside the result while an image of {pixels / 1e6:.0f} "
            "megapixels is restored",
            f"{free / 2**30:.0f} GiB",
            "Write the result to a larger disk, or crop the image.",
        )
