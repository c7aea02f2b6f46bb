"""Lengths in micrometres, whatever unit a file writes them in."""

from __future__ import annotations

import math

UM_PER_UNIT = {
    "m": 1e6,
    "meter": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "µm": 1.0,  # micro sign
    "μm": 1.0,  # Greek mu
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "å": 1e-4,
    "angstrom": 1e-4,
    "pm": 1e-6,
    "picometer": 1e-6,
    "inch": 25400.0,
    "in": 25400.0,
}


def um_per_unit(unit: object) -> float | None:
    """Micrometres in a unit; None for an unknown one. ImageJ writes the micro sign as \\u00B5."""
    return UM_PER_UNIT.get(str(unit or "").replace("\\u00B5", "µ").strip().lower())


def length_um(value: object, unit: object) -> float | None:
    """A length in micrometres; None unless it is a positive number in a known unit."""
    number, scale = positive(value), um_per_unit(unit)
    return None if number is None or scale is None else number * scale


def positive(value: object) -> float | None:
    """A positive finite number, from a number or its text; None for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def square_um(size: tuple[float, float] | None) -> float | None:
    """The common side of a pixel, or None when y and x differ by more than 1 %."""
    if size is None or not math.isclose(*size, rel_tol=0.01):
        return None
    return size[1]
