"""What a running service saw of a challenger on users' images (service/watching/shadow.py), summed up.

Images of one user on one day count as one sitting: they are not independent.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RECORD = "shadow.jsonl"
"""In the folder of the service's jobs."""


@dataclass(frozen=True)
class ShadowSummary:
    """A challenger against a champion, over users' images."""

    images: int
    sittings: int
    width_change: float
    """By how much its intervals are wider, as a share of the champion's: median over sittings."""
    difference: float
    """Between both reconstructions: root mean square as a share of the intensity range, median."""
    residual_change: float | None
    """By how much its forward-model residual is larger, as a share; None where it is not known."""

    def words(self) -> str:
        """For people."""
        width = f"{abs(self.width_change):.0%} {'wider' if self.width_change > 0 else 'narrower'}"
        told = (
            f"on {self.images} images of users ({self.sittings} sittings) its intervals are {width} and its "
            f"reconstructions differ by {self.difference:.1%} of the intensity range"
        )
        if self.residual_change is None:
            return told
        return f"{told}, with a forward-model residual {self.residual_change:+.0%}"


def shadow_summary(jobs_dir: Path, champion_run: str, challenger_run: str) -> ShadowSummary | None:
    """What is on record about two versions, named by their runs; None where nothing is."""
    wanted = {"champion_run": champion_run, "challenger_run": challenger_run}
    rows = [row for row in _rows(jobs_dir / RECORD) if wanted.items() <= row.items()]
    if not rows:
        return None
    sittings: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        sittings[row["owner"], row["at"][:10]].append(row)
    grouped = list(sittings.values())
    known = all(row["champion_residual"] is not None for row in rows)
    return ShadowSummary(
        images=len(rows),
        sittings=len(grouped),
        width_change=_median(grouped, lambda row: row["challenger_width"] / row["champion_width"] - 1),
        difference=_median(grouped, lambda row: row["difference"]),
        residual_change=_median(
            grouped, lambda row: row["challenger_residual"] / row["champion_residual"] - 1
        )
        if known
        else None,
    )


def _median(sittings: Sequence[Sequence[Mapping[str, Any]]], value: Any) -> float:
    """Over sittings, of the medians over their images."""
    return float(np.median([np.median([value(row) for row in rows]) for rows in sittings]))


def _rows(path: Path) -> list[dict[str, Any]]:
    """Every whole line; the last one may have been interrupted."""
    found = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
    except FileNotFoundError:
        return []
    return found
