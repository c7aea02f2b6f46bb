"""What validation measures: one frozen row of features for each name in low/ and high/, never a missing row.

A pair that is incomplete, misnamed or unreadable has a row that says so, with None where nothing can be
measured. Pixels of one pair at a time are in memory. Nothing is judged here: see flows/expectations.py.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cvdm.card import Card, load_card
from cvdm.dataset import image_files, split_of
from cvdm.errors import DatasetError, ImageError
from cvdm.images import Image, read_image

Progress = Callable[[int, int], None]
"""Called with (done, total) pairs."""
SIDES = ("low", "high")
SIDE_NAMES = {"low": "input", "high": "target"}


@dataclass(frozen=True)
class SideFeatures:
    """One image of a pair."""

    present: bool = False
    readable: bool = False
    finite: bool | None = None
    """None where the file cannot be read."""
    problem: str | None = None
    """Why it cannot be used, in the words of the reader."""
    remedy: str | None = None
    shape: str | None = None
    """"HEIGHT x WIDTH"."""
    dtype: str | None = None
    lowest: float | None = None
    highest: float | None = None
    at_lowest: float | None = None
    """Share of pixels that hold the lowest value: clipped blacks pile up there."""
    at_highest: float | None = None
    """Share of pixels that hold the highest value: a saturated detector piles up there, at any bit depth."""
    digest: str | None = None
    """SHA-256 of shape and pixels; equal images have equal ones, whatever their files look like."""
    twin_in_split: str | None = None
    """A pair of another field, in the same split, with the same image here."""
    twin_across: str | None = None
    """A pair in another split with the same image here."""

    @property
    def span(self) -> float | None:
        """Highest minus lowest value; 0 for a constant image."""
        return None if self.highest is None or self.lowest is None else self.highest - self.lowest


@dataclass(frozen=True)
class PairFeatures:
    """One row of the table."""

    name: str
    field: str | None
    """None where the name does not match the card's pattern."""
    split: str | None
    low: SideFeatures
    high: SideFeatures
    splits_of_field: int | None = None
    """In how many splits this row's field turns up; anything but 1 is a leak."""

    @property
    def complete(self) -> bool:
        return self.low.present and self.high.present

    @property
    def same_shape(self) -> bool | None:
        """None where one of the images has no known shape."""
        shapes = (self.low.shape, self.high.shape)
        return None if None in shapes else shapes[0] == shapes[1]

    def side(self, name: str) -> SideFeatures:
        return self.low if name == "low" else self.high

    def with_side(self, name: str, image: SideFeatures) -> PairFeatures:
        return replace(self, low=image) if name == "low" else replace(self, high=image)


def measure(root: Path, progress: Progress | None = None) -> tuple[Card, tuple[PairFeatures, ...]]:
    """Card and feature table of a dataset folder. Raises DatasetError where there is nothing to measure."""
    card = load_card(root)
    files = {side: image_files(Path(root) / side, card) for side in SIDES}
    names = sorted({*files["low"], *files["high"]})
    if not names:
        raise DatasetError("pairs of TIFF images", f"empty folders low/ and high/ in {root}", "Add images.")
    rows = []
    for done, name in enumerate(names, start=1):
        match = re.fullmatch(card.name_pattern, name)
        field = match["field"] or None if match else None
        split = split_of(field, card) if field else None
        low, high = (measure_image(files[side].get(name)) for side in SIDES)
        rows.append(PairFeatures(name, field, split, low, high))
        if progress is not None:
            progress(done, len(names))
    return card, compare(rows)


def measure_image(path: Path | None) -> SideFeatures:
    """Features of one file that do not depend on other files."""
    if path is None:
        return SideFeatures()
    try:
        image = read_image(path)
    except ImageError as error:
        # Non-finite pixels are the one refusal of an otherwise sound file: a check of its own.
        sound = error.expected == "finite pixel values"
        finite = False if sound else None
        return SideFeatures(True, sound, finite, error.actual, error.remedy)
    return _measured(image)


def compare(rows: list[PairFeatures]) -> tuple[PairFeatures, ...]:
    """Fill in what depends on all rows: the splits of each field, and equal images elsewhere."""
    splits = defaultdict(set)
    for row in rows:
        splits[row.field].add(row.split)
    rows = [replace(row, splits_of_field=len(splits[row.field]) if row.field else None) for row in rows]
    for side in SIDES:
        twins = dict(_twins(rows, side))
        rows = [row.with_side(side, twins.get(row.name, row.side(side))) for row in rows]
    return tuple(rows)


def usual_dtype(rows: Sequence[PairFeatures], side: str) -> str | None:
    """The type of number that most images of one side have."""
    counts = Counter(sorted(dtype for row in rows if (dtype := row.side(side).dtype)))
    return counts.most_common(1)[0][0] if counts else None


def _measured(image: Image) -> SideFeatures:
    pixels = image.pixels
    lowest, highest = float(pixels.min()), float(pixels.max())
    return SideFeatures(
        present=True,
        readable=True,
        finite=True,
        shape=f"{pixels.shape[0]} x {pixels.shape[1]}",
        dtype=image.dtype,
        lowest=lowest,
        highest=highest,
        at_lowest=float(np.mean(pixels == lowest)),
        at_highest=float(np.mean(pixels == highest)),
        digest=hashlib.sha256(
            repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
        ).hexdigest(),
    )


def _twins(rows: list[PairFeatures], side: str) -> Iterator[tuple[str, SideFeatures]]:
    """By name, the image with an equal one in another split, or in the same split where it should not be.

    Captures of a field may share their target; two equal inputs are a copy even within a field.
    """
    groups = defaultdict(list)
    for row in rows:
        if row.side(side).digest and row.split:
            groups[row.side(side).digest].append(row)
    for group in groups.values():
        for row in group:
            others = [other for other in group if other.name != row.name]
            across = next((o.name for o in others if o.split != row.split), None)
            inside = next(
                (o.name for o in others if o.split == row.split and (side == "low" or o.field != row.field)),
                None,
            )
            yield row.name, replace(row.side(side), twin_across=across, twin_in_split=inside)
