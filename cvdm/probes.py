"""The probes that every model is given: structures planted into test fields, and one erased.

    spots of 10% and 30%           of the target's range, 1.5 px wide, in the darkest of sixteen places
    filament of 30%                across the field
    brightest structure erased     down to the background around it

Of a crop of some test fields the input is changed as `cvdm.probing` describes, and restored again; what the
model makes of it is an `Answer`. For models of one channel, without neighbours, on one grid: how light of the
specimen comes to be in other inputs is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields

import numpy as np

from cvdm.checkpoint import Checkpoint
from cvdm.dataset import Dataset
from cvdm.field_of_view import Progress
from cvdm.metrics import target_range
from cvdm.optics import ForwardModel, blur
from cvdm.patches import ImagePair, read_pair
from cvdm.posterior import Estimate, reconstruct
from cvdm.probing import Answer, Detection, erase, filament, judge, measured_detection, plant, spots
from cvdm.sight import PLAIN
from cvdm.validation import busiest_crop

CONTRASTS = (0.1, 0.3)
"""Of planted spots, as shares of the target's range."""
WIDTH = 1.5
"""Sigma of spots and filament in pixels, less than the optics of most fields resolve."""
EDGE, FIELDS = 128, 2
"""Of the crops, and of how many test fields they are; some seconds on a CPU."""
Restorer = Callable[[np.ndarray], Estimate]


def changes(target: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Name and change (H, W) of each probe of a target, in its units."""
    height, width = target.shape
    span = target_range(target)
    centres = [(height * i // 8, width * j // 8) for i in (1, 3, 5, 7) for j in (1, 3, 5, 7)]
    dark = sorted(centres, key=lambda at: target[at[0] - 6 : at[0] + 7, at[1] - 6 : at[1] + 7].mean())[:8]
    for contrast in CONTRASTS:
        yield f"spots of {contrast:.0%}", spots((height, width), dark, WIDTH, contrast * span)
    start, end = (height // 6, width // 3), (5 * height // 6, width // 2)
    yield "filament of 30%", filament((height, width), start, end, WIDTH, 0.3 * span)
    row, column = np.unravel_index(np.argmax(blur(target, 4)), target.shape)
    around = spots((height, width), [(int(row), int(column))], 8, 1.0)
    background = np.percentile(target, 20)
    yield "brightest structure erased", -around * np.clip(target - background, 0, None)


def detection_of(image: ImagePair, optics: ForwardModel | None) -> Detection:
    """How light comes to be in an input: by the card's forward model, or by the noise of the pair."""
    return Detection.of(optics) if optics else measured_detection(image.low, image.high)


def probed(image: ImagePair, how: Detection, restore: Restorer, seed: int = 0) -> dict[str, Answer]:
    """What a restorer makes of each probe of an image, by the probe's name."""
    before, rng = restore(image.low), np.random.default_rng(seed)
    found = {}
    for name, change in changes(image.high):
        if change.min() < 0:
            low = erase(image.low, image.high, -change, how, rng)
        else:
            low = plant(image.low, change, how, rng)
        found[name] = judge(before, restore(low.astype(np.float32)), image.high, change)
    return found


def probe_model(
    checkpoint: Checkpoint, dataset: Dataset, progress: Progress | None = None
) -> dict[str, dict[str, Answer]]:
    """By test field, what the model makes of each probe; nothing for models of other inputs.

    progress: called with (done, total) fields. Raises ImageError.
    """
    if checkpoint.sight != PLAIN:
        return {}
    first = {pair.field: pair for pair in reversed(dataset.split("test"))}
    chosen = sorted(first.items())[:FIELDS]
    found = {}
    for done, (field, pair) in enumerate(chosen, start=1):
        image = busiest_crop(read_pair(pair), EDGE)
        if target_range(image.high) > 0:
            how = detection_of(image, dataset.card.forward_model)
            found[field] = probed(image, how, lambda low: reconstruct(checkpoint, low))
        if progress is not None:
            progress(done, len(chosen))
    return found


def mean_answers(by_field: Mapping[str, Mapping[str, Answer]]) -> dict[str, Answer]:
    """Over fields, by probe."""
    names = next(iter(by_field.values()), {})
    return {
        name: Answer(
            *(
                float(np.mean([getattr(answers[name], field.name) for answers in by_field.values()]))
                for field in fields(Answer)
            )
        )
        for name in names
    }
