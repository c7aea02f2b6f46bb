"""What speaks against restoring an image with a model, although it can be done: doubts, for people.

A model restores what resembles its training images. Their pixel size and intensities are known, so an image
that differs is told from one that does not. So is one of another focus, noise or texture (`cvdm.novelty`);
whether structures of the same texture differ, no number here says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from cvdm.checkpoint import Checkpoint
from cvdm.errors import ImageError
from cvdm.normalisation import Normalisation, Pixels, sampled
from cvdm.novelty import NOVEL
from cvdm.observation import Observation
from cvdm.reading.stack import Metadata
from cvdm.reading.units import square_um

SCALE_TOLERANCE = 1.25
"""Ratio of pixel sizes up to which structures look alike to a network."""
SATURATED_SHARE = 0.005
"""Share of pixels at the detector's end beyond which the brightest structures are cut off."""
FAMILIAR_REACH = 2.0
"""Half ranges from the middle of the training's intensities, whose own percentiles reach 1; no shipped image
reaches more than 1.6."""


@dataclass(frozen=True)
class Doubt:
    """One reason, in the words of a refusal."""

    expected: str
    actual: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)

    def as_error(self) -> ImageError:
        """For whoever would rather refuse than warn."""
        return ImageError(self.expected, self.actual, self.remedy)


def doubts_of_file(checkpoint: Checkpoint, metadata: Metadata, label: str, axes: str) -> list[Doubt]:
    """What a file's facts and axes say; nothing where file or model state none."""
    sight = checkpoint.sight
    alone = [
        Doubt(
            f"a stack along {sight.context_axis}: this model looks at {sight.context} planes on each side",
            f"{label} with none",
            "Restore the whole stack; a plane by itself stands for its neighbours.",
        )
    ]
    return _doubts_of_pixel_size(checkpoint, metadata, label) + (
        alone if sight.context and sight.context_axis not in axes else []
    )


def _doubts_of_pixel_size(checkpoint: Checkpoint, metadata: Metadata, label: str) -> list[Doubt]:
    trained, given = checkpoint.record.pixel_size_um, metadata.pixel_size_um
    if trained is None or given is None:
        return []
    side = square_um(given)
    if side is not None and max(side / trained, trained / side) <= SCALE_TOLERANCE:
        return []
    told = f"{side:.4g} µm" if side is not None else f"{given[0]:.4g} x {given[1]:.4g} µm"
    return [
        Doubt(
            f"pixels of about {trained:.4g} µm, like those of the training",
            f"{label} with pixels of {told}",
            f"Resample the image to {trained:.4g} µm, or use a model for this magnification.",
        )
    ]


def doubts_of_image(
    checkpoint: Checkpoint, observation: Observation, full_range: float | None, label: str
) -> list[Doubt]:
    """What each channel of an observation says; full_range as of `cvdm.reading.Stack`."""
    found = [
        doubt
        for name, own, pixels in zip(
            checkpoint.sight.names, checkpoint.normalisation.channels, observation.centres, strict=True
        )
        for doubt in doubts_of_plane(own, pixels, full_range, f"{label}, {name}" if name else label)
    ]
    return found + doubts_of_novelty(checkpoint, observation, label)


def doubts_of_novelty(checkpoint: Checkpoint, observation: Observation, label: str) -> list[Doubt]:
    """What the restored channel of an observation says beside the training fields."""
    novelty = checkpoint.novelty(observation)
    if novelty is None or novelty <= NOVEL:
        return []
    stretch = checkpoint.calibration.stretch(novelty)
    return [
        Doubt(
            "an image that looks like the training's, in focus, noise, sampling and texture",
            f"{label}, {novelty:.1f} times as far from them as they are from each other",
            f"Look at focus, exposure and specimen; its interval is {stretch:.1f} times as wide as else.",
        )
    ]


def doubts_of_plane(
    normalisation: Normalisation, pixels: Pixels, full_range: float | None, label: str
) -> list[Doubt]:
    """What a plane (H, W) of one channel in file units says."""
    seen = sampled(pixels)
    low, high = float(seen.min()), float(seen.max())
    if low == high:
        return [
            Doubt("an image with something on it", f"{label}, {low:.4g} everywhere", "Look at the image.")
        ]
    found = []
    saturated = float(np.mean(seen >= full_range)) if full_range is not None and full_range > 1 else 0.0
    if saturated > SATURATED_SHARE:
        found.append(
            Doubt(
                f"at most {SATURATED_SHARE:.1%} of pixels at the detector's end, {full_range:.0f}",
                f"{label} with {saturated:.1%}",
                "Acquire with less light or gain; what is cut off cannot be restored.",
            )
        )
    reach = normalisation.scale_of(pixels).reach(pixels)
    if reach > FAMILIAR_REACH and math.isfinite(reach):
        found.append(
            Doubt(
                f"intensities of mostly {normalisation.low:.4g} to {normalisation.high:.4g}, as in training",
                f"{label} with {low:.4g} to {high:.4g}",
                "Use the exposure and gain of the training images, or a model for this one.",
            )
        )
    return found


def gathered(doubts: Iterable[Doubt]) -> tuple[Doubt, ...]:
    """Of a stack's planes, the first doubt of each kind."""
    kinds: dict[str, Doubt] = {}
    for doubt in doubts:
        kinds.setdefault(doubt.expected, doubt)
    return tuple(kinds.values())
