"""From files to rows: every pair is read once and measured, one pair at a time in each worker process.

All captures of a field are one piece of work, so that a target which they share is measured once. Workers are
separate processes, because most of the work holds Python's lock; a small batch is measured in this one.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from cvdm.card import Card
from cvdm.dataset import image_files, split_of
from cvdm.errors import DatasetError
from cvdm.inspection.fingerprints import Fingerprint
from cvdm.inspection.vignetting import LocalChanges
from cvdm.ledger import load_ledger
from flows.validation.features import SIDES, PairFeatures
from flows.validation.one_pair import PairFiles, Target, measure_pairs
from flows.validation.workers import submit, worker_pool

Progress = Callable[[int, int], None]
"""Called with (done, total) pairs."""
Measure = Callable[[Sequence[PairFiles]], list[tuple[PairFeatures, Target | None]]]
IN_PROCESS = 10e6  # bytes of files, up to which starting workers takes longer than they save
AHEAD = 2  # pieces of work per worker that are handed out in advance


@dataclass(frozen=True)
class Measurements:
    """What was measured of a batch before anything is compared across its pairs."""

    rows: tuple[PairFeatures, ...]
    """In the order of their names."""
    fingerprints: Mapping[str, Fingerprint]
    """Of each different target, by its digest."""
    changes: Mapping[str, LocalChanges] = field(default_factory=dict)
    """Of each different target with structure enough, by its digest: what it says about vignetting."""

    def without(self, names: Iterable[str]) -> Measurements:
        """The same without some pairs."""
        gone = set(names)
        rows = tuple(row for row in self.rows if row.name not in gone)
        kept = {row.high.digest for row in rows}
        return Measurements(
            rows,
            {d: one for d, one in self.fingerprints.items() if d in kept},
            {d: one for d, one in self.changes.items() if d in kept},
        )

    def dealt(self, card: Card) -> Measurements:
        """The same with each pair in the split that a card deals its field to."""
        return replace(self, rows=dealt_rows(self.rows, card))

    def plus(self, other: Measurements) -> Measurements:
        """These and those of other pairs."""
        rows = sorted((*self.rows, *other.rows), key=lambda row: row.name)
        return Measurements(
            tuple(rows),
            {**self.fingerprints, **other.fingerprints},
            {**self.changes, **other.changes},
        )


def files_of(root: Path, card: Card, sessions: Mapping[str, str] | None = None) -> tuple[PairFiles, ...]:
    """The pairs of a folder with low/ and high/. Raises DatasetError where there is nothing to measure.

    sessions: by pair, those that are known from elsewhere than the names; from the ledger when left out.
    """
    known = load_ledger(Path(root)).sessions if sessions is None else sessions
    files = {side: image_files(Path(root) / side, card) for side in SIDES}
    names = sorted({*files["low"], *files["high"]})
    if not names:
        raise DatasetError("pairs of images", f"empty folders low/ and high/ in {root}", "Add images.")
    found = []
    for name in names:
        match = re.fullmatch(card.name_pattern, name)
        groups = match.groupdict() if match else {}
        session = known.get(name, groups.get("session"))
        low, high = (files[side].get(name) for side in SIDES)
        found.append(PairFiles(name, groups.get("field") or None, session, low, high))
    return tuple(found)


def dealt_rows(rows: Iterable[PairFeatures], card: Card) -> tuple[PairFeatures, ...]:
    """Rows with each pair in the split that a card deals its field to."""
    return tuple(replace(row, split=split_of(row.field, card) if row.field else None) for row in rows)


def measure(
    pairs: Sequence[PairFiles], card: Card, progress: Progress | None = None, *, workers: int | None = None
) -> Measurements:
    """Measure every pair. workers: processes; all cores when left out."""
    rows: list[PairFeatures] = []
    fingerprints: dict[str, Fingerprint] = {}
    changes: dict[str, LocalChanges] = {}
    # illumination is compared between sessions, so one alone needs no look at it
    lit = len({pair.session for pair in pairs}) > 1
    measured = partial(measure_pairs, lit=lit, sight=card.sight)
    for found in _in_parallel(_by_field(pairs), measured, workers or len(os.sched_getaffinity(0))):
        for row, one in found:
            rows.append(row)
            if one is not None and row.high.digest:
                fingerprints[row.high.digest] = one.fingerprint
                if one.changes is not None:
                    changes[row.high.digest] = one.changes
            if progress is not None:
                progress(len(rows), len(pairs))
    rows.sort(key=lambda row: row.name)
    return Measurements(tuple(rows), fingerprints, changes).dealt(card)


def _by_field(pairs: Sequence[PairFiles]) -> list[list[PairFiles]]:
    groups: dict[str, list[PairFiles]] = defaultdict(list)
    for pair in pairs:
        groups[pair.field or pair.name].append(pair)
    return list(groups.values())


def _in_parallel(
    work: list[list[PairFiles]], measured: Measure, workers: int
) -> Iterator[list[tuple[PairFeatures, Target | None]]]:
    """Results as they are ready; only a few pieces of work are under way at any time."""
    workers = min(workers, len(work))
    if workers < 2 or sum(_size(pair) for piece in work for pair in piece) <= IN_PROCESS:
        yield from (measured(piece) for piece in work)
        return
    with worker_pool(workers) as pool:
        waiting: set[Future[list[tuple[PairFeatures, Target | None]]]] = set()
        for piece in work:
            waiting.add(submit(pool, measured, piece))
            if len(waiting) >= AHEAD * workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _size(pair: PairFiles) -> int:
    """Bytes of a pair's files; folders count nothing."""
    return sum(path.stat().st_size for path in (pair.low, pair.high) if path is not None and path.is_file())
