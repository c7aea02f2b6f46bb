"""Have the data changed since the champion learned from them?

Fields of view that the champion's dataset did not hold are compared with those that it did, one value per
field and feature (cvdm/inspection/shift.py). A feature counts as shifted when the difference is neither
chance (false discoveries controlled) nor small (effect size).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cvdm.inspection.shift import LEVEL, FeatureShift, distribution_shift, shifted
from flows.validation.features import SIDES, PairFeatures

OF_IMAGE = ("background", "span", "noise", "snr_db", "focus_db", "signal_share", "saturated", "grey_levels")
OF_PAIR = ("snr_gain_db", "shift_px", "gain", "curvature")


@dataclass(frozen=True)
class Drift:
    """The comparison of new fields with those that a model learned from."""

    reference_fields: int
    new_fields: int
    features: tuple[FeatureShift, ...]
    """Every feature that was compared; empty where there is no new field."""

    @property
    def shifted(self) -> tuple[FeatureShift, ...]:
        """Features whose difference is neither chance nor small."""
        return shifted(self.features)

    @property
    def can_tell(self) -> bool:
        """Whether there are fields enough that one separated feature would not pass for chance."""
        possible = [one.smallest_p for one in self.features if one.smallest_p is not None]
        return any(p * len(possible) <= LEVEL for p in possible)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "reference_fields": self.reference_fields,
            "new_fields": self.new_fields,
            "can_tell": self.can_tell,
            "shifted": [one.feature for one in self.shifted],
            "features": [asdict(one) for one in self.features],
        }

    def summary(self) -> str:
        """The comparison for people, one line per shifted feature."""
        if not self.new_fields:
            return "drift: no field of view that the champion's data did not hold"
        head = (
            f"drift: {self.new_fields} new fields of view against {self.reference_fields} "
            "of the champion's data"
        )
        if not self.can_tell:
            return f"{head}; too few to tell"
        if not self.shifted:
            return f"{head}; no feature shifted"
        lines = [f"  {one.summary()}" for one in self.shifted]
        return "\n".join([f"{head}; {len(self.shifted)} features shifted", *lines])


def drift(reference: Iterable[Mapping[str, Any]], rows: Sequence[PairFeatures]) -> Drift:
    """Compare rows with the table of an earlier report (its key `table`)."""
    before = list(reference)
    known = {row["field"] for row in before if row["field"]}
    now = [asdict(row) for row in rows]
    new = [row for row in now if row["field"] and row["field"] not in known]
    features = distribution_shift(_by_feature(before), _by_feature(new)) if new else ()
    return Drift(len(known), len({row["field"] for row in new}), features)


def _by_feature(rows: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """One value per field of view: the median of its captures."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        columns = {f"{side}_{name}": row[side].get(name) for side in SIDES for name in OF_IMAGE}
        columns |= {name: row.get(name) for name in OF_PAIR}
        for name, value in columns.items():
            if value is not None and row["field"]:
                values[name][row["field"]].append(value)
    return {name: np.array([np.median(v) for v in fields.values()]) for name, fields in values.items()}
