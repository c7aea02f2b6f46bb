"""Measured values as text without their units, for places where the unit stands elsewhere."""

from __future__ import annotations

from flows.validation.quantities import Quantity

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def factor(quantity: Quantity) -> int:
    """From a value to the number that is shown."""
    return 100 if quantity.unit == "%" else 1


def bare(quantity: Quantity, value: float) -> str:
    """A value as it is shown, without its unit."""
    return plain(float(f"{factor(quantity) * value:.3g}"))


def plain(number: float) -> str:
    """A number of few digits: 0.25, 1200, 3·10⁻⁵."""
    if number and (abs(number) >= 100_000 or abs(number) < 0.001):
        mantissa, exponent = f"{number:.0e}".split("e")
        raised = str(int(exponent)).translate(RAISED)
        return {"1": f"10{raised}", "-1": f"−10{raised}"}.get(mantissa, f"{mantissa}·10{raised}")
    return f"{number:.5g}".replace("-", "−")
