"""The measured quantities that have thresholds: what each means, which direction is bad, what to do about it.

One entry makes the checks of a quantity, its axis in the report and its line in a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cvdm.errors import ConfigError
from flows.validation.features import SIDE_NAMES, SIDES, PairFeatures
from flows.validation.policy import Limits, ValidationPolicy


@dataclass(frozen=True)
class Quantity:
    """One measured number of a pair, or of one of its images."""

    name: str
    """Of the check and of its thresholds in ValidationPolicy."""
    title: str
    """What it is, in a microscopist's words: "Share of saturated pixels"."""
    remedy: str
    side: str | None = None
    """low, high, or None for a number of the pair."""
    unit: str = ""
    """As text behind the number; "%" shows a share in percent."""
    worse: Literal["above", "below"] = "above"
    """On which side of a threshold values are bad."""

    @property
    def column(self) -> str:
        """Its name in the table that Great Expectations judges."""
        return f"{self.side}_{self.name}" if self.side else self.name

    @property
    def label(self) -> str:
        """Its title with the image that it is about: "Share of saturated pixels, input"."""
        return f"{self.title}, {SIDE_NAMES[self.side]}" if self.side else self.title

    def value(self, row: PairFeatures) -> float | None:
        """Its value in a row; None where the images allow no statement."""
        found = getattr(row.side(self.side) if self.side else row, self.name)
        return None if found is None else float(found)

    def limits(self, policy: ValidationPolicy) -> Limits:
        return policy.limits(self.name)

    def show(self, value: float | None) -> str:
        """A value with its unit, as messages print it."""
        if value is None:
            return "not measurable"
        return f"{100 * value:.3g} %" if self.unit == "%" else f"{value:.3g} {self.unit}".rstrip()


def require_order(policy: ValidationPolicy) -> None:
    """Raise ConfigError where a warning would come only after the refusal."""
    for quantity in QUANTITIES:
        limits = quantity.limits(policy)
        if limits.warn is None or limits.refuse is None:
            continue
        later = limits.warn > limits.refuse if quantity.worse == "above" else limits.warn < limits.refuse
        if later:
            raise ConfigError(
                f"a threshold `warn` that values pass before `refuse`, for {quantity.name}",
                f"warn {limits.warn:g}, refuse {limits.refuse:g}, where values {quantity.worse} are bad",
                "Correct `validation` in params.yaml or in the card.",
            )


def _both(name: str, title: str, remedy: str, **more: str) -> tuple[Quantity, ...]:
    return tuple(Quantity(name, title, remedy, side=side, **more) for side in SIDES)  # type: ignore[arg-type]


QUANTITIES: tuple[Quantity, ...] = (
    *_both(
        "saturated",
        "Share of saturated pixels",
        "Lower exposure, laser power or gain and acquire the field again.",
        unit="%",
    ),
    *_both(
        "black",
        "Share of pixels clipped at the dark end",
        "Raise the detector's offset; export raw images, without background subtraction or stretch.",
        unit="%",
    ),
    *_both(
        "grey_levels",
        "Number of grey levels",
        "Export with the detector's full bit depth, without rescaling.",
        worse="below",
    ),
    Quantity(
        "snr_db",
        "Signal-to-noise ratio",
        "Expose longer or average frames: the input shows hardly anything but noise.",
        side="low",
        unit="dB",
        worse="below",
    ),
    Quantity(
        "snr_gain_db",
        "Signal-to-noise ratio of the target over the input's",
        "Check that the two were not exchanged, and that the target was averaged or exposed long enough.",
        unit="dB",
        worse="below",
    ),
    *_both(
        "focus_loss",
        "Loss of sharpness against the other fields",
        "Refocus and acquire the field again, or leave the pair out.",
        unit="times the usual spread",
    ),
    Quantity(
        "shift_px",
        "Shift between input and target",
        "Acquire both without moving the stage between them, or register them before export.",
        unit="px",
    ),
    Quantity(
        "rotation_deg",
        "Rotation between input and target",
        "Check that both were taken with the same camera position, or register them before export.",
        unit="°",
    ),
    Quantity(
        "scale_percent",
        "Difference in magnification between input and target",
        "Check that both were taken with the same objective and zoom, or resample one of them.",
        unit="% of size",
    ),
    Quantity(
        "registration",
        "Common structure of input and target",
        "Look whether both show the same field of view; too little structure cannot be registered.",
        unit="standard deviations above chance",
        worse="below",
    ),
    Quantity(
        "rank_correlation",
        "Rank correlation of the intensities of input and target",
        "Look whether both show the same field of view and the same channel, and none is inverted.",
        worse="below",
    ),
    Quantity(
        "curvature",
        "Curvature of the relation of intensities",
        "Export both without gamma or other non-linear contrast.",
        unit="%",
    ),
    Quantity(
        "separate_stretch",
        "Difference in scale of two images that each fill the file's range",
        "Export raw intensities: input and target were contrast-stretched separately.",
    ),
    *_both(
        "hot_pixels",
        "Hot pixels per megapixel",
        "Cool the camera, run its hot-pixel correction, or clear cosmic-ray hits.",
    ),
    *_both(
        "dropped_lines",
        "Lost rows or columns",
        "Acquire the field again: the detector or the transfer lost lines.",
    ),
    *_both(
        "stagger_px",
        "Offset of odd against even rows",
        "Calibrate the phase of the bidirectional scan and acquire the field again.",
        unit="px",
    ),
    Quantity(
        "signal_share",
        "Share of the area with signal",
        "Leave the pair out: the field of view is empty.",
        side="high",
        unit="%",
        worse="below",
    ),
    *_both(
        "background_drift",
        "Drift of the background against other sessions",
        "Check the camera's offset and stray light; record a dark frame per session.",
        unit="%",
    ),
    Quantity(
        "vignetting",
        "Loss of light in the corners beyond that of other sessions, at least",
        "Look at an even fluorescent slide: centre the illumination, or correct every image for it.",
        unit="%",
    ),
)


def quantities_table() -> str:
    """The quantities with their default thresholds as a Markdown table, as docs/validation.md shows it."""
    policy = ValidationPolicy()
    rows = ["| quantity | of | warned | refused | what to do |", "| --- | --- | --- | --- | --- |"]
    shown: dict[str, list[Quantity]] = {}
    for quantity in QUANTITIES:
        shown.setdefault(quantity.name, []).append(quantity)
    for name, members in shown.items():
        one, limits = members[0], policy.limits(name)
        sign = ">" if one.worse == "above" else "<"
        warn, refuse = (
            "" if limit is None else f"{sign} {one.show(limit)}" for limit in (limits.warn, limits.refuse)
        )
        of = " and ".join(SIDE_NAMES[member.side] for member in members if member.side) or "pair"
        rows.append(
            f"| `{name}`: {one.title[0].lower()}{one.title[1:]} | {of} | {warn} | {refuse} | {one.remedy} |"
        )
    return "\n".join(rows)
