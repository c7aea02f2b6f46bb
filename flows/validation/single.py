"""One image file on its own: what it is, and what the checks of a single image say about it."""

from __future__ import annotations

from pathlib import Path

from cvdm.card import Card, Split
from flows.validation.checks import checks
from flows.validation.features import PairFeatures, SideFeatures
from flows.validation.one_pair import measure_image
from flows.validation.policy import ValidationPolicy
from flows.validation.report import ValidationReport, findings_of
from flows.validation.suite import failures_of

ALONE = ("readable", "finite", "plane", "size", "constant")
"""Checks without a threshold that need no partner."""


def examine_file(path: Path, policy: ValidationPolicy) -> ValidationReport:
    """Read, measure and judge one file, as an input would be. Never raises for what the file holds."""
    image = measure_image(path)
    row = PairFeatures(path.name, path.name, None, None, low=image, high=image)
    card = Card(
        task="single-image",
        name_pattern="(?P<field>.+)",
        inputs="measured",
        split=Split(seed=0, train=1, validation=0, calibration=0, test=0),
        structure="not stated",
        modality="not stated",
        licence="not stated",
        citation="not stated",
    )
    rules = [
        check
        for check in checks([row], card, policy)
        if check.column.startswith("low_") and (check.name in ALONE or check.quantity)
    ]
    found = findings_of((row,), failures_of([row], card, rules))
    return ValidationReport(
        root=path,
        card=card,
        policy=policy,
        overridden=(),
        rejected=tuple(one for one in found if one.severity == "error"),
        warnings=tuple(one for one in found if one.severity == "warning"),
        checks=len(rules),
        table=(row,),
    )


def description(report: ValidationReport) -> str:
    """What the file is and how it fares, for people."""
    image = report.table[0].low
    lines = [f"{report.root.name}: {'refused' if report.rejected else 'accepted'}"]
    lines += [f"  {name}: {text}" for name, text in _facts(image) if text]
    lines += [f"  refused ({one.check}): {one}" for one in report.rejected]
    lines += [f"  warning ({one.check}): {one}" for one in report.warnings]
    return "\n".join(lines)


def _facts(image: SideFeatures) -> list[tuple[str, str | None]]:
    shape = " x ".join(str(length) for length in image.shape or ())
    pixel = " x ".join(f"{size:.4g}" for size in image.pixel_size_um or ())

    def number(value: float | None, unit: str = "") -> str | None:
        return None if value is None else f"{value:.3g} {unit}".rstrip()

    return [
        ("format", image.format),
        ("axes", image.axes and f"{image.axes}, {shape}"),
        ("numbers", image.dtype),
        ("values", None if image.lowest is None else f"{image.lowest:g} to {image.highest:g}"),
        ("pixel size", pixel and f"{pixel} µm (y, x)"),
        ("numerical aperture", number(image.numerical_aperture)),
        ("wavelength", number(image.wavelength_nm, "nm")),
        ("channel", image.channel),
        ("acquired", image.acquired),
        ("signal-to-noise ratio", number(image.snr_db, "dB")),
        ("grey levels", None if image.grey_levels is None else str(image.grey_levels)),
    ]
