"""From files to rows: every pair is read once and measured, one pair at a time in each worker process.

All captures of a field are one piece of work, so that a target which they share is measured once. Workers are
separate processes, because most of the work holds Python's lock; a small batch is measured in this one.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cvdm.card import Card
from cvdm.dataset import image_files, split_of
from cvdm.errors import DatasetError, ImageError
from cvdm.images import MAX_PIXELS
from cvdm.inspection.artefacts import hot_pixels, signal_share
from cvdm.inspection.dropped_lines import dropped_columns, dropped_rows
from cvdm.inspection.fingerprints import Fingerprint, fingerprint
from cvdm.inspection.focus import measure_focus
from cvdm.inspection.illumination import background_offset
from cvdm.inspection.intensity import intensity
from cvdm.inspection.noise import measure_noise
from cvdm.inspection.registration import register
from cvdm.inspection.relation import measure_relation
from cvdm.inspection.stagger import scan_stagger
from cvdm.inspection.vignetting import LocalChanges, local_changes
from cvdm.reading import Stack, read_stack
from flows.validation.features import SIDES, PairFeatures, SideFeatures

Progress = Callable[[int, int], None]
"""Called with (done, total) pairs."""
IN_PROCESS = 10e6  # bytes of files, up to which starting workers takes longer than they save
AHEAD = 2  # pieces of work per worker that are handed out in advance


@dataclass(frozen=True)
class PairFiles:
    """Where the two images of a name are; None for one that is missing."""

    name: str
    field: str | None
    session: str | None
    low: Path | None
    high: Path | None


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
        rows = (replace(row, split=split_of(row.field, card) if row.field else None) for row in self.rows)
        return replace(self, rows=tuple(rows))

    def plus(self, other: Measurements) -> Measurements:
        """These and those of other pairs."""
        rows = sorted((*self.rows, *other.rows), key=lambda row: row.name)
        return Measurements(
            tuple(rows),
            {**self.fingerprints, **other.fingerprints},
            {**self.changes, **other.changes},
        )


@dataclass(frozen=True)
class Target:
    """What is kept of a target to compare it with others: some 20 kB."""

    fingerprint: Fingerprint
    changes: LocalChanges | None
    """None where there is too little structure."""


@dataclass(frozen=True)
class _Image:
    """One measured image while its pair is at hand."""

    features: SideFeatures
    pixels: np.ndarray | None = None
    full_range: float | None = None
    target: Target | None = None


def files_of(root: Path, card: Card, sessions: Mapping[str, str] | None = None) -> tuple[PairFiles, ...]:
    """The pairs of a folder with low/ and high/. Raises DatasetError where there is nothing to measure.

    sessions: by pair, those that are known from elsewhere than the names.
    """
    files = {side: image_files(Path(root) / side, card) for side in SIDES}
    names = sorted({*files["low"], *files["high"]})
    if not names:
        raise DatasetError("pairs of images", f"empty folders low/ and high/ in {root}", "Add images.")
    found = []
    for name in names:
        match = re.fullmatch(card.name_pattern, name)
        groups = match.groupdict() if match else {}
        session = (sessions or {}).get(name, groups.get("session"))
        low, high = (files[side].get(name) for side in SIDES)
        found.append(PairFiles(name, groups.get("field") or None, session, low, high))
    return tuple(found)


def measure(
    pairs: Sequence[PairFiles], card: Card, progress: Progress | None = None, *, workers: int | None = None
) -> Measurements:
    """Measure every pair. workers: processes; all cores when left out."""
    rows: list[PairFeatures] = []
    fingerprints: dict[str, Fingerprint] = {}
    changes: dict[str, LocalChanges] = {}
    for found in _in_parallel(_by_field(pairs), workers or len(os.sched_getaffinity(0))):
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


def measure_pairs(pairs: Sequence[PairFiles]) -> list[tuple[PairFeatures, Target | None]]:
    """Rows of some pairs, and what is kept of each target that was not measured before; in one process."""
    found = []
    last: tuple[Path | None, bytes, _Image] | None = None
    for pair in pairs:
        low = _image(pair.low, is_target=False)
        content = _content(pair.high)
        # captures of a field share their target: do not measure it again
        known = last is not None and content != b"" and last[1] == content
        high = last[2] if known and last else _image(pair.high, is_target=True)
        last = (pair.high, content, high)
        row = PairFeatures(pair.name, pair.field, None, pair.session, low.features, high.features)
        found.append((_with_pair(row, low, high), None if known else high.target))
    return found


def measure_image(path: Path, *, is_target: bool = True) -> SideFeatures:
    """What one file says on its own."""
    return _image(path, is_target=is_target).features


def _by_field(pairs: Sequence[PairFiles]) -> list[list[PairFiles]]:
    groups: dict[str, list[PairFiles]] = defaultdict(list)
    for pair in pairs:
        groups[pair.field or pair.name].append(pair)
    return list(groups.values())


def _in_parallel(
    work: list[list[PairFiles]], workers: int
) -> Iterator[list[tuple[PairFeatures, Target | None]]]:
    """Results as they are ready; only a few pieces of work are under way at any time."""
    workers = min(workers, len(work))
    if workers < 2 or sum(_size(pair) for piece in work for pair in piece) <= IN_PROCESS:
        yield from (measure_pairs(piece) for piece in work)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that runs threads may deadlock
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        waiting: set[Future[list[tuple[PairFeatures, Target | None]]]] = set()
        try:
            for piece in work:
                waiting.add(pool.submit(measure_pairs, piece))
                if len(waiting) >= AHEAD * workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in waiting:
                future.cancel()


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle; a parent that is killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from flows.tether import die_with_parent

    die_with_parent()


def _size(pair: PairFiles) -> int:
    """Bytes of a pair's files; folders count nothing."""
    return sum(path.stat().st_size for path in (pair.low, pair.high) if path is not None and path.is_file())


def _content(path: Path | None) -> bytes:
    """SHA-256 of a file; empty where it cannot be read."""
    if path is not None:
        with suppress(OSError), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    return b""


def _image(path: Path | None, *, is_target: bool) -> _Image:
    features = SideFeatures(present=path is not None)
    if path is None:
        return _Image(features)
    try:
        with read_stack(path, max_pixels=MAX_PIXELS) as stack:
            features = _described(stack)
            if stack.plane_count != 1:
                return _Image(features)
            pixels = stack.plane(0).pixels
            full_range = stack.full_range
    except ImageError as error:
        # Non-finite pixels are the one refusal of an otherwise sound file: a check of its own.
        sound = error.expected == "finite pixel values"
        finite = False if sound else None
        return _Image(
            replace(features, readable=sound, finite=finite, problem=error.actual, remedy=error.remedy)
        )
    features = _measured(features, pixels, full_range)
    target = Target(fingerprint(pixels), local_changes(pixels)) if is_target else None
    return _Image(features, pixels, full_range, target)


def _described(stack: Stack) -> SideFeatures:
    """What the header says."""
    wavelengths = stack.wavelengths_nm
    return SideFeatures(
        present=True,
        readable=True,
        finite=True,
        format=stack.format,
        axes=stack.axes,
        shape=stack.shape,
        dtype=stack.dtype,
        megabytes=float(np.prod(stack.shape)) * max(1, np.dtype(stack.dtype).itemsize) / 1e6,
        pixel_size_um=stack.pixel_size_um,
        numerical_aperture=stack.numerical_aperture,
        wavelength_nm=wavelengths[0] if len(wavelengths) == 1 else None,
        channel=stack.channel_names[0] if len(stack.channel_names) == 1 else None,
        acquired=stack.acquired,
    )


def _measured(features: SideFeatures, pixels: np.ndarray, full_range: float | None) -> SideFeatures:
    """What the pixels (H, W) say."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    features = replace(
        features,
        lowest=float(pixels.min()),
        highest=float(pixels.max()),
        digest=digest.hexdigest(),
    )
    use = intensity(pixels, full_range=full_range)
    if use is None:  # a constant image says nothing else
        return features
    noise, focus, stagger = measure_noise(pixels), measure_focus(pixels), scan_stagger(pixels)
    return replace(
        features,
        saturated=use.high.excess,
        black=use.low.excess,
        range_share=use.range_share,
        span=use.span,
        grey_levels=use.levels,
        background=background_offset(pixels),
        noise=noise.level if noise else None,
        snr_db=noise.snr_db if noise else None,
        focus_db=focus.focus_db if focus else None,
        hot_pixels=hot_pixels(pixels),
        dropped_lines=dropped_rows(pixels).total + dropped_columns(pixels).total,
        stagger_px=None if stagger is None else max(0.0, abs(stagger.shift) - 2 * stagger.error),
        signal_share=signal_share(pixels),
    )


def _with_pair(row: PairFeatures, low: _Image, high: _Image) -> PairFeatures:
    """What the two images say about each other."""
    if low.pixels is None or high.pixels is None or low.pixels.shape != high.pixels.shape:
        return row
    snr = (low.features.snr_db, high.features.snr_db)
    same_type = low.features.dtype == high.features.dtype
    relation = measure_relation(low.pixels, high.pixels, full_range=low.full_range if same_type else None)
    if relation is not None:
        row = replace(
            row,
            rank_correlation=relation.rank_correlation,
            gain=relation.gain,
            curvature=abs(relation.curvature),
            separate_stretch=relation.separate_stretch,
        )
    if None not in snr:
        row = replace(row, snr_gain_db=snr[1] - snr[0])  # type: ignore[operator]  # just checked
    found = register(low.pixels, high.pixels)
    if found is None:
        constant = low.features.span is None or high.features.span is None
        return row if constant else replace(row, registration=0.0)
    return replace(
        row,
        shift_px=found.shift_px,
        shift_yx=(found.dy, found.dx),
        rotation_deg=None if found.rotation_deg is None else abs(found.rotation_deg),
        scale_percent=None if found.scale is None else 100 * abs(found.scale),
        registration=found.significance,
    )
