"""The checks of validation: one rule for each thing that a pair, or the table of all pairs, must be.

No tool is imported here; flows/validation/expectations.py runs the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cvdm.card import SPLITS, Card
from flows.validation.features import SIDE_NAMES, SIDES, PairFeatures, usual_dtype
from flows.validation.policy import ValidationPolicy
from flows.validation.quantities import QUANTITIES
from flows.validation.rules import Absent, Check, Contains, OneOf, Present, Rows, Same, Severity, Within

SMALLEST_SIDE = 32
"""Pixels; below, most measures cannot be taken, and no training patch fits."""


def checks(
    rows: Sequence[PairFeatures],
    card: Card,
    policy: ValidationPolicy,
    *,
    established: Sequence[PairFeatures] = (),
) -> tuple[Check, ...]:
    """All checks, in the order in which a pair meets them.

    established: pairs that set the usual type of numbers; all where there are none.
    """
    return (
        *_of_files(rows, card),
        *_of_formats(established or rows, card),
        *_of_metadata(card, policy),
        *_of_quantities(policy),
        *_of_splits(),
    )


def _of_files(rows: Sequence[PairFeatures], card: Card) -> Iterator[Check]:
    """Is there a readable pair at all?"""
    yield Check(
        "row-count",
        "name",
        Rows(len(rows)),
        "one row for each pair",
        lambda row: "another number",
        "Validate again; files changed meanwhile.",
    )
    yield Check(
        "complete",
        "complete",
        OneOf(True),
        "an input in low/ and a target in high/ of the same name",
        lambda row: f"no {SIDE_NAMES['high' if row.low.present else 'low']}",
        "Add the missing file or remove its partner.",
        blocks=True,
    )
    yield Check(
        "name",
        "field",
        Present(),
        f"a name that tells its field of view by the card's name_pattern {card.name_pattern}",
        lambda row: f"'{row.name}'",
        "Rename both files, or correct name_pattern in card.yaml.",
        blocks=True,
    )
    for side in SIDES:
        for name, expected in (("readable", "a readable image"), ("finite", "finite pixel values")):
            yield Check(
                name,
                f"{side}_{name}",
                OneOf(True),
                f"{expected} as {SIDE_NAMES[side]}",
                lambda row, side=side: str(row.side(side).problem),  # type: ignore[misc]
                lambda row, side=side: str(row.side(side).remedy),  # type: ignore[misc]
                blocks=True,
            )


def _of_formats(rows: Sequence[PairFeatures], card: Card) -> Iterator[Check]:
    """Are both images of a kind that one training can use?"""
    for side in SIDES:
        yield Check(
            "plane",
            f"{side}_fits",
            OneOf(True),
            f"{_kind(card, side)} as {SIDE_NAMES[side]}",
            lambda row, side=side: _extent(row, side),  # type: ignore[misc]
            "Export the planes as files of their own, or state channels or context in the card.",
            blocks=True,
        )
    yield Check(
        "shape",
        "corresponding",
        OneOf(True),
        "input and target of one shape"
        if card.factor == 1
        else f"a target of {card.factor} times the input's pixels along a side, by the card's factor",
        lambda row: f"{_extent(row, 'low')} and {_extent(row, 'high')}{_factor(row)}",
        lambda row: "Export both at the same size and position" + _factor_remedy(row) + ".",
        blocks=True,
    )
    yield Check(
        "constant",
        "low_empty_channel",
        Absent(),
        "more than one grey value in every channel of the input",
        lambda row: f"channel {row.low.empty_channel} with one",
        "Leave the pair out: shutter closed, lamp off or an empty export.",
        blocks=True,
    )
    for side in SIDES:
        yield Check(
            "size",
            f"{side}_smallest_side",
            Within(least=SMALLEST_SIDE),
            f"at least {SMALLEST_SIDE} x {SMALLEST_SIDE} px as {SIDE_NAMES[side]}",
            lambda row, side=side: _extent(row, side),  # type: ignore[misc]
            "Leave the pair out, or export the whole field: there is too little to learn from.",
            blocks=True,
        )
        who, usual = SIDE_NAMES[side], usual_dtype(rows, side)
        yield Check(
            "dtype",
            f"{side}_dtype",
            OneOf(usual),
            f"{usual} pixels, as most {who}s of this task have",
            lambda row, side=side: str(row.side(side).dtype),  # type: ignore[misc]
            "Export all images of a task with the same bit depth, without rescaling.",
        )
        yield Check(
            "constant",
            f"{side}_constant",
            OneOf(False),
            f"more than one grey value in the {who}",
            lambda row, side=side: f"{row.side(side).lowest:g} everywhere",  # type: ignore[misc]
            "Leave the pair out: shutter closed, lamp off or an empty export.",
            blocks=True,
        )


def _of_metadata(card: Card, policy: ValidationPolicy) -> Iterator[Check]:
    """Do the files say what the card says?"""
    stated = {
        "pixel_size": ("pixel size", card.pixel_size_um, "µm"),
        "numerical_aperture": ("numerical aperture", card.numerical_aperture, ""),
        "wavelength": ("excitation wavelength", card.wavelength_nm, "nm"),
    }
    for name, (words, value, unit) in stated.items():
        for side in SIDES:
            if value is not None:
                finer = card.factor if (name, side) == ("pixel_size", "high") else 1
                yield Check(
                    name.replace("_", "-"),
                    f"{side}_{name}_deviation",
                    Within(most=policy.metadata_tolerance, optional=True),
                    f"the card's {words} of {value / finer:g} {unit}".rstrip()
                    + f" in the {SIDE_NAMES[side]}",
                    lambda row, side=side, name=name: _stated(row, side, name),  # type: ignore[misc]
                    "Correct the card, or leave out images of another magnification or channel.",
                )
    for side in SIDES if card.channel is not None else ():
        yield Check(
            "channel",
            f"{side}_other_channel",
            Absent(),
            f"the card's channel '{card.channel}' in the {SIDE_NAMES[side]}",
            lambda row, side=side: f"channel '{row.side(side).channel}'",  # type: ignore[misc]
            "Export the channel that the task is about, or correct the card.",
        )
    yield Check(
        "pixel-size-of-pair",
        "pixel_size_ratio",
        Within(most=policy.metadata_tolerance, optional=True),
        "one pixel size in input and target"
        if card.factor == 1
        else f"pixels {card.factor} times as large in the input as in the target",
        lambda row: f"{_stated(row, 'low', 'pixel_size')} and {_stated(row, 'high', 'pixel_size')}",
        "Export both at magnifications that fit their numbers of pixels.",
    )
    missing = [words for words, value, _ in stated.values() if value is None]
    yield Check(
        "metadata",
        "missing_metadata",
        Same(""),
        "pixel size, numerical aperture and wavelength, from the card",
        lambda row: f"none for {' and '.join(missing)}",
        "Write what you know into card.yaml; files with other values are then refused.",
        severity="warning",
    )


def _of_quantities(policy: ValidationPolicy) -> Iterator[Check]:
    """Does a measured number lie within its thresholds?"""
    for quantity in QUANTITIES:
        limits = quantity.limits(policy)
        levels: tuple[tuple[Severity, float | None], ...] = (
            ("error", limits.refuse),
            ("warning", limits.warn),
        )
        for severity, limit in levels:
            if limit is None:
                continue
            above = quantity.worse == "above"
            bound = Within(most=limit, optional=True) if above else Within(least=limit, optional=True)
            yield Check(
                quantity.name.replace("_", "-"),
                quantity.column,
                bound,
                f"{quantity.label[0].lower()}{quantity.label[1:]}: "
                f"at {'most' if above else 'least'} {quantity.show(limit)}",
                lambda row, quantity=quantity: quantity.show(quantity.value(row)),  # type: ignore[misc]
                quantity.remedy,
                severity=severity,
                quantity=quantity,
            )


def _of_splits() -> Iterator[Check]:
    """Can the test fields be trusted to be unseen?"""
    yield Check(
        "field-in-one-split",
        "splits_of_field",
        OneOf(1),
        "all pairs of a field of view in one split",
        lambda row: f"field {row.field} in {row.splits_of_field} splits",
        "Give different fields different names, and check name_pattern in card.yaml.",
    )
    for side in SIDES:
        who = SIDE_NAMES[side]
        yield Check(
            "leak",
            f"{side}_twin_across",
            Absent(),
            f"no {who} image in two splits",
            lambda row, side=side: f"the same image as {row.side(side).twin_across}",  # type: ignore[misc]
            "Remove one of the two, or list their fields under `overlapping` in card.yaml.",
        )
        yield Check(
            "copy" if side == "low" else "copied-target",
            f"{side}_twin_in_split",
            Absent(),
            f"every {who} once",
            lambda row, side=side: f"the same image as {row.side(side).twin_in_split}",  # type: ignore[misc]
            "Remove one of the two; if it is one field under two names, give both names the same field.",
            severity="warning",
        )
    yield Check(
        "overlap-across-splits",
        "lookalike_across",
        Absent(),
        "no scene in two splits",
        lambda row: f"the same scene as field {row.lookalike_across}, which is in another split",
        "List the two fields under `overlapping` in card.yaml, or remove one of them.",
    )
    yield Check(
        "overlap",
        "lookalike_in_split",
        Absent(),
        "fields of view that share nothing, or are listed as overlapping",
        lambda row: f"the same scene as field {row.lookalike_in_split}",
        "List the two fields under `overlapping` in card.yaml, so that they count as one.",
        severity="warning",
    )
    yield Check(
        "shared-target",
        "shares_target",
        Same(False),
        "a target of its own for every input",
        lambda row: "inputs that share their target",
        "Nothing, if they are captures of one field: a field counts once, however many captures it has.",
        severity="warning",
    )
    for split in SPLITS:
        yield Check(
            "splits",
            "split",
            Contains(split),
            f"at least one field of view in the {split} split",
            lambda row: "none",
            "Add fields, or choose another split.seed in the card before the first training.",
        )


def _extent(row: PairFeatures, side: str) -> str:
    image = row.side(side)
    if image.shape is None or image.axes is None:
        return "unknown"
    size = " x ".join(str(length) for length in image.shape)
    named = f" ({image.channel})" if "C" in image.axes and image.channel else ""
    return size if image.axes == "YX" else f"{image.axes} of {size}{named}"


def _kind(card: Card, side: str) -> str:
    """What an image of one side is."""
    stack = f"a stack along {card.context_axis}" if card.context else "a single plane"
    return f"{stack} of the channels {', '.join(card.channels)}" if side == "low" and card.channels else stack


def _factor(row: PairFeatures) -> str:
    """That the target is larger by a whole factor, which is what super-resolution pairs look like."""
    factor = _whole_factor(row)
    return f" (a factor of {factor})" if factor else ""


def _factor_remedy(row: PairFeatures) -> str:
    factor = _whole_factor(row)
    return f", or write `factor: {factor}` into the card to learn super-resolution" if factor else ""


def _whole_factor(row: PairFeatures) -> int | None:
    if row.low.shape is None or row.high.shape is None:
        return None
    ratios = {large / small for large, small in zip(row.high.shape[-2:], row.low.shape[-2:], strict=True)}
    ratio = ratios.pop()
    return int(ratio) if not ratios and ratio == int(ratio) and ratio > 1 else None


def _stated(row: PairFeatures, side: str, name: str) -> str:
    image = row.side(side)
    if name == "pixel_size":
        sizes = image.pixel_size_um or ()
        return " x ".join(f"{size:.4g}" for size in sizes) + " µm"
    return f"{image.numerical_aperture if name == 'numerical_aperture' else image.wavelength_nm:g}"
