"""Where refused pairs go: out of the batch, with their reasons, never lost and never over something else.

    quarantine/TASK/BATCH/low, high     the images under their own names
    quarantine/TASK/BATCH/reasons.json  what was expected of each, what it is instead, what to do
    quarantine/TASK/BATCH/page.html     the batch as it was judged, for people; written by `cvdm ingest`

Moving is copying, comparing byte for byte, and only then removing the original; a rerun after an interruption
finds what is there already and goes on. Originals that may not be removed stay where they are, too.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from cvdm.storage import replacing, storage_error
from flows.plain_json import plain_json
from flows.transfer import copied, on_disk, removed, same_content
from flows.validation import Finding
from flows.validation.features import SIDES
from flows.validation.one_pair import PairFiles

REASONS = "reasons.json"


@dataclass(frozen=True)
class Quarantined:
    """What came of moving refused pairs away."""

    folder: Path
    pairs: tuple[PairFiles, ...]
    """The pairs where they are now."""
    left: tuple[str, ...]
    """Pairs with an original that is still in the batch: on a read-only share, or not to be opened."""


def quarantine(
    place: Path, batch: str, pairs: Sequence[PairFiles], findings: Iterable[Finding]
) -> Quarantined:
    """Move the images of some pairs into a folder of this batch in `place`, with the reasons.

    A folder of that name in which other content has one of the names is left alone, and another one is made.
    Raises StorageError.
    """
    folder = next(one for one in _candidates(place, batch) if not _in_the_way(one, pairs))
    try:
        _note(folder / REASONS, findings)
        for pair in pairs:
            _copy(folder, pair)
        left = [pair.name for pair in pairs if not _removed(folder, pair)]
    except OSError as error:
        raise storage_error(error, folder) from error
    return Quarantined(folder, tuple(_there(folder, pair) for pair in pairs), tuple(left))


def _candidates(place: Path, batch: str) -> Iterator[Path]:
    yield place / batch
    number = 2
    while True:
        yield place / f"{batch}-{number}"
        number += 1


def _moves(folder: Path, pair: PairFiles) -> list[tuple[Path, Path]]:
    sources = [(side, getattr(pair, side)) for side in SIDES]
    return [(source, folder / side / source.name) for side, source in sources if source is not None]


def _there(folder: Path, pair: PairFiles) -> PairFiles:
    targets = {target.parent.name: target for _, target in _moves(folder, pair)}
    return replace(pair, low=targets.get("low"), high=targets.get("high"))


def _in_the_way(folder: Path, pairs: Sequence[PairFiles]) -> bool:
    """Whether a name is taken by other content, or by the original, as of a batch from quarantine."""
    moves = [move for pair in pairs for move in _moves(folder, pair) if move[1].exists()]
    return any(target.samefile(source) or not same_content(source, target) for source, target in moves)


def _copy(folder: Path, pair: PairFiles) -> None:
    """Copy both images, unless they are there; raises OSError unless each copy is equal."""
    for source, target in _moves(folder, pair):
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            copied(source, temporary)
            if not same_content(source, temporary):
                raise OSError(f"the copy of {source} differs from it")
            on_disk(temporary)  # before the original goes
            temporary.replace(target)
        finally:
            if temporary.exists():
                removed(temporary)


def _removed(folder: Path, pair: PairFiles) -> bool:
    """Remove both originals; False where one may not be removed."""
    gone = True
    for source, _ in _moves(folder, pair):
        try:
            removed(source)
        except OSError:
            gone = False
    return gone


def _note(path: Path, findings: Iterable[Finding]) -> None:
    """Add reasons to those of images that are there: half a pair that a killed move left has its own."""
    there = [file.name for side in SIDES for file in path.with_name(side).glob("*")]
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    # what a person has taken out again has no reason any more
    known = [entry for entry in known if any(name.startswith(f"{entry['name']}.") for name in there)]
    explained = {entry["name"] for entry in known}
    new = [finding.as_json() for finding in findings if finding.name not in explained]
    by_pair = sorted([*known, *new], key=itemgetter("name"))  # however many attempts it took
    with replacing(path) as temporary:
        temporary.write_text(plain_json(by_pair) + "\n", encoding="utf-8")
