"""What a pair is like beside the other pairs: equal and similar images, sharpness and background.

Statistics count fields of view, not captures: each field enters with the median of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cvdm.card import Card
from cvdm.inspection.duplicate_search import groups, near_duplicates
from cvdm.inspection.fingerprints import Fingerprint
from cvdm.inspection.vignetting import LocalChanges, added_falloff
from cvdm.ledger import joined
from flows.validation.features import SIDES, PairFeatures, SideFeatures
from flows.validation.measuring import Measurements

FEWEST_FIELDS = 8  # below, sharpness has no usual spread
FEWEST_FIELDS_OF_SESSION = 3  # below, a difference of backgrounds may be that of two samples
SMALLEST_SPREAD_DB = 0.75  # of sharpness, which no set of fields is more even than


def compare(
    measured: Measurements, card: Card, *, score: float, new: Collection[str] = ()
) -> tuple[PairFeatures, ...]:
    """The rows with everything filled in that depends on more than one of them.

    score: from which two targets count as the same scene, see cvdm/inspection/duplicate_search.py.
    new:   names of pairs that come to present ones.
    """
    rows = list(measured.rows)
    splits = defaultdict(set)
    for row in rows:
        splits[row.field].add(row.split)
    rows = [replace(row, splits_of_field=len(splits[row.field]) if row.field else None) for row in rows]
    for side in SIDES:
        twins = _with_twins(rows, side, new)
        rows = [row.with_side(side, image) for row, image in zip(rows, twins, strict=True)]
        rows = _with_focus_loss(rows, side, new)
        rows = _with_background_drift(rows, side)
    rows = _with_vignetting(rows, measured.changes)
    return tuple(_with_lookalikes(rows, measured.fingerprints, card, score))


def same_scenes(
    rows: Sequence[PairFeatures], fingerprints: Mapping[str, Fingerprint], score: float
) -> list[tuple[str, ...]]:
    """Groups of fields whose targets show parts of one scene, each sorted, as found in the pixels."""
    fields = _fields_by_digest(rows)
    known = {digest: one for digest, one in fingerprints.items() if digest in fields}
    alike = [pair for pair in near_duplicates(known) if pair.score >= score]
    found: dict[str, set[str]] = defaultdict(set)
    for digest, names in fields.items():
        found[digest] |= names
    scenes = [set().union(*(found[digest] for digest in group)) for group in groups(alike)]
    scenes += [names for names in found.values() if len(names) > 1]
    return sorted(tuple(sorted(scene)) for scene in joined(sorted(map(sorted, scenes))) if len(scene) > 1)


def _fields_by_digest(rows: Sequence[PairFeatures]) -> dict[str, set[str]]:
    fields: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.high.digest and row.field:
            fields[row.high.digest].add(row.field)
    return fields


def _with_twins(rows: Sequence[PairFeatures], side: str, new: Collection[str]) -> Iterator[SideFeatures]:
    """Each image with the name of an equal one in another split, or in the same split where it should not be.

    Present ones are named before new ones. Captures of a field may share their target; two equal inputs are a
    copy even within a field.
    """
    same = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.name in new):
        if row.side(side).digest and row.split:
            same[row.side(side).digest].append(row)
    for row in rows:
        others = [other for other in same.get(row.side(side).digest, ()) if other.name != row.name]
        across = next((o.name for o in others if o.split != row.split), None)
        inside = next(
            (o.name for o in others if o.split == row.split and (side == "low" or o.field != row.field)),
            None,
        )
        yield replace(row.side(side), twin_across=across, twin_in_split=inside)


def _with_lookalikes(
    rows: Sequence[PairFeatures], fingerprints: Mapping[str, Fingerprint], card: Card, score: float
) -> Iterator[PairFeatures]:
    """Each row with another field of the same scene, in another split or, unknown to the card, in its own."""
    scene_of = {field: scene for scene in same_scenes(rows, fingerprints, score) for field in scene}
    known = {field: set(group) for group in card.overlapping for field in group}
    split_of = {row.field: row.split for row in rows}
    for row in rows:
        others = [other for other in scene_of.get(row.field or "", ()) if other != row.field]
        across = next((o for o in others if split_of[o] != row.split), None)
        inside = next(
            (o for o in others if split_of[o] == row.split and o not in known.get(row.field or "", set())),
            None,
        )
        # equal images are reported as such, and once
        twin = row.high.twin_across or row.high.twin_in_split
        yield replace(
            row,
            lookalike_across=None if row.high.twin_across else across,
            lookalike_in_split=None if twin else inside,
        )


def _with_focus_loss(rows: Sequence[PairFeatures], side: str, new: Collection[str]) -> list[PairFeatures]:
    """How far each image's sharpness lies below the median field, in robust deviations.

    Present fields set the measure for new ones, where there are enough of them.
    """
    by_field = _medians([row for row in rows if row.name not in new], side, "focus_db")
    if len(by_field) < FEWEST_FIELDS:
        by_field = _medians(rows, side, "focus_db")
    if len(by_field) < FEWEST_FIELDS:
        return list(rows)
    values = np.array(list(by_field.values()))
    middle = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), SMALLEST_SPREAD_DB)

    def loss(image: SideFeatures) -> float | None:
        return None if image.focus_db is None else max(0.0, (middle - image.focus_db) / spread)

    return [row.with_side(side, replace(row.side(side), focus_loss=loss(row.side(side)))) for row in rows]


def _with_background_drift(rows: Sequence[PairFeatures], side: str) -> list[PairFeatures]:
    """How far the background of each session lies from that of all others, as a share of the usual span."""
    sessions = defaultdict(list)
    for row in rows:
        sessions[row.session].append(row)
    if len(sessions) < 2:
        return list(rows)
    spans = [image.span for row in rows if (image := row.side(side)).span]
    drift: dict[str | None, float] = {}
    for session, own in sessions.items():
        others = [row for row in rows if row.session != session]
        here, there = (list(_medians(some, side, "background").values()) for some in (own, others))
        if min(len(here), len(there)) >= FEWEST_FIELDS_OF_SESSION and spans:
            drift[session] = abs(float(np.median(here) - np.median(there))) / float(np.median(spans))
    return [
        row.with_side(side, replace(row.side(side), background_drift=drift.get(row.session))) for row in rows
    ]


def _with_vignetting(rows: Sequence[PairFeatures], changes: Mapping[str, LocalChanges]) -> list[PairFeatures]:
    """What each session's targets lose in the corners beyond all others, at least; a field counts once."""
    fields: dict[str | None, dict[str, LocalChanges]] = defaultdict(dict)
    for row in rows:
        one = changes.get(row.high.digest or "")
        if row.field and one is not None:
            fields[row.session].setdefault(row.field, one)
    least: dict[str | None, float] = {}
    for session, own in fields.items():
        others = [one for name, some in fields.items() if name != session for one in some.values()]
        found = added_falloff(list(own.values()), others)
        if found is not None:
            least[session] = max(found.at_least, 0.0)  # less than nothing is no loss that is shown
    return [replace(row, vignetting=least.get(row.session)) for row in rows]


def _medians(rows: Sequence[PairFeatures], side: str, name: str) -> dict[str, float]:
    """By field, the median of one number of its images."""
    values = defaultdict(list)
    for row in rows:
        value = getattr(row.side(side), name)
        if value is not None and row.field:
            values[row.field].append(value)
    return {field: float(np.median(numbers)) for field, numbers in values.items()}
