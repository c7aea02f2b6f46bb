"""The rows of the feature table: what is known about one pair of images, in numbers.

A pair that is incomplete, misnamed or unreadable has a row too; None stands wherever nothing can be measured.
Nothing is judged here: flows/validation/checks.py holds the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cvdm.sight import Sight

SIDES = ("low", "high")
SIDE_NAMES = {"low": "input", "high": "target"}


@dataclass(frozen=True)
class SideFeatures:
    """One image of a pair. Intensities are in the file's units."""

    present: bool = False
    readable: bool = False
    finite: bool | None = None
    """None where the file cannot be read."""
    problem: str | None = None
    """Why it cannot be used, in the words of the reader."""
    remedy: str | None = None

    format: str | None = None
    axes: str | None = None
    """"YX" for a single plane."""
    shape: tuple[int, ...] | None = None
    """One length per axis."""
    fits: bool | None = None
    """Whether these axes and channels are those that the card states: for most a single plane."""
    dtype: str | None = None
    megabytes: float = 0.0
    """Of decoded pixels."""
    pixel_size_um: tuple[float, float] | None = None
    """Along y and x, as the file states it; the following likewise."""
    numerical_aperture: float | None = None
    wavelength_nm: float | None = None
    channel: str | None = None
    """Of several, their names with commas."""
    acquired: str | None = None

    empty_channel: str | None = None
    """A channel of several that is constant."""
    lowest: float | None = None
    """Of the restored channel, and of a stack in its middle; so are the following."""
    highest: float | None = None
    saturated: float | None = None
    """Share of pixels at the highest value beyond what the values below lead to expect."""
    black: float | None = None
    """The same at the lowest value."""
    range_share: float | None = None
    """Of the file's range of numbers, 0 to 1, that lies between the 0.1 and 99.9 percentiles."""
    span: float | None = None
    """Between those percentiles."""
    grey_levels: int | None = None
    """Different values."""
    background: float | None = None
    """The most common value of the darker half."""
    noise: float | None = None
    """Standard deviation."""
    snr_db: float | None = None
    focus_db: float | None = None
    """Loss of power at a period of 10 px; falls with blur."""
    hot_pixels: float | None = None
    """Per megapixel."""
    dropped_lines: int | None = None
    """Rows and columns."""
    stagger_px: float | None = None
    """How far odd rows lie from even rows at least, two standard errors taken off."""
    signal_share: float | None = None
    """Share of the area that is brighter than the background."""
    digest: str | None = None
    """SHA-256 of shape and pixels; equal images have equal ones, whatever their files look like."""

    focus_loss: float | None = None
    """How far focus_db lies below that of the other fields, in their usual deviations."""
    background_drift: float | None = None
    """How far the session's background lies from that of the other sessions, as a share of the span."""
    twin_in_split: str | None = None
    """A pair of another field, in the same split, with the same image here."""
    twin_across: str | None = None
    """A pair in another split with the same image here."""


@dataclass(frozen=True)
class PairFeatures:
    """One row of the table."""

    name: str
    field: str | None
    """None where the name does not match the card's pattern."""
    split: str | None
    session: str | None
    low: SideFeatures
    high: SideFeatures

    snr_gain_db: float | None = None
    """By how much the target's SNR exceeds the input's."""
    shift_px: float | None = None
    """Between input and target."""
    shift_yx: tuple[float, float] | None = None
    rotation_deg: float | None = None
    """Absolute."""
    scale_percent: float | None = None
    """Absolute enlargement of the target against the input."""
    registration: float | None = None
    """Height of the correlation peak in standard deviations of unrelated images."""
    rank_correlation: float | None = None
    """Between the intensities of input and target."""
    gain: float | None = None
    """Target = gain * input + offset."""
    curvature: float | None = None
    """Absolute departure of that relation from a line, as a share of the target's span."""
    separate_stretch: float | None = None
    """How far the scales of input and target lie apart, where both fill their file's range exactly."""

    vignetting: float | None = None
    """Share of the light that the session's targets lose in the corners beyond those of others, at least."""
    splits_of_field: int | None = None
    """In how many splits this row's field turns up; anything but 1 is a leak."""
    lookalike_across: str | None = None
    """A field in another split that shows parts of the same scene."""
    lookalike_in_split: str | None = None
    """The same in this split, where the two are not listed as overlapping."""

    @property
    def complete(self) -> bool:
        return self.low.present and self.high.present

    @property
    def usable(self) -> bool:
        """Whether pixels of both sides were measured."""
        return self.low.digest is not None and self.high.digest is not None

    @property
    def same_axes(self) -> bool | None:
        """None where one of the images has no known axes."""
        axes = (self.low.axes, self.high.axes)
        return None if None in axes else axes[0] == axes[1]

    def corresponds(self, sight: Sight) -> bool | None:
        """Whether the shapes are those of an input and its target; None where one of them is not known."""
        low, high = self.low, self.high
        if low.shape is None or high.shape is None or low.axes is None or high.axes is None:
            return None
        axis = sight.context_axis
        planes = [dict(zip(one.axes or "", one.shape or (), strict=True)).get(axis, 1) for one in (low, high)]
        return sight.enlarged(low.shape) == high.shape[-2:] and (planes[0] == planes[1] or not sight.context)

    def side(self, name: str) -> SideFeatures:
        return self.low if name == "low" else self.high

    def with_side(self, name: str, image: SideFeatures) -> PairFeatures:
        return replace(self, low=image) if name == "low" else replace(self, high=image)


def usual_dtype(rows: Sequence[PairFeatures], side: str) -> str | None:
    """The type of number that most images of one side have."""
    counts = Counter(sorted(dtype for row in rows if (dtype := row.side(side).dtype)))
    return counts.most_common(1)[0][0] if counts else None
