"""A dataset: pairs of input and target images in one folder, split by field of view.

    ROOT/card.yaml        what the images are (cvdm/card.py)
    ROOT/ledger.json      what ingests found out, if there were any (cvdm/ledger.py)
    ROOT/low/NAME.tif     inputs
    ROOT/high/NAME.tif    targets, one for each input

A field belongs to the split that its own name hashes to; adding or removing other fields never moves it.
All pairs of a field are in the same split, and so are fields that the card lists as overlapping, which share
pixels of the scene: they follow the first of their group. Pixels are not read here: see cvdm/images.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cvdm.card import CARD_NAME, SPLITS, Card, Split, load_card
from cvdm.errors import DatasetError
from cvdm.ledger import LEDGER_NAME, load_ledger
from cvdm.sight import PLAIN, Sight

__all__ = [
    "SPLITS",
    "Card",
    "Dataset",
    "Pair",
    "Split",
    "load_card",
    "load_dataset",
    "split_of",
]

SUFFIXES = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".mrc", ".czi", ".nd2", ".lif")
FOLDER_SUFFIXES = (".ome.zarr", ".zarr")
"""Of images that are folders."""
LITTER = ("thumbs.db", "desktop.ini")
"""Files that file managers leave behind."""
LISTED = 5  # names that an error message lists


@dataclass(frozen=True)
class Pair:
    """One input image and its target; `session` is None where the card's pattern names none."""

    name: str
    field: str
    session: str | None
    low: Path
    high: Path
    sight: Sight = PLAIN
    """What of the input is seen, and on which grid, as the card says."""
    target_units: str = "input"
    """As the card says."""


@dataclass(frozen=True)
class Dataset:
    """All pairs of one folder, in the order of their names."""

    root: Path
    card: Card
    pairs: tuple[Pair, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over card, ledger and each pair's name and bytes; neither place nor order matter.

        Taken once, however the folder changes later: seconds of work, and what was listed is what is meant.
        """
        total = hashlib.sha256(_file_digest(self.root / CARD_NAME))
        ledger = self.root / LEDGER_NAME
        if ledger.exists():
            total.update(_file_digest(ledger))
        for pair in sorted(self.pairs, key=lambda pair: pair.name):
            total.update(hashlib.sha256(pair.name.encode()).digest())
            total.update(_file_digest(pair.low) + _file_digest(pair.high))
        return total.hexdigest()

    def split(self, name: str) -> tuple[Pair, ...]:
        """The pairs of one split. Raises DatasetError for a name that is no split."""
        if name not in SPLITS:
            raise DatasetError(f"a split ({', '.join(SPLITS)})", f"'{name}'", "Choose one of these.")
        return tuple(pair for pair in self.pairs if split_of(pair.field, self.card) == name)

    def fields(self, name: str) -> tuple[str, ...]:
        """The fields of view of one split, each once, sorted."""
        return tuple(sorted({pair.field for pair in self.split(name)}))

    def require_splits(self, *names: str) -> None:
        """Raise DatasetError unless each named split (all, when none is named) holds a field."""
        empty = [name for name in names or SPLITS if not self.split(name)]
        if empty:
            count = len({pair.field for pair in self.pairs})
            raise DatasetError(
                f"at least one field of view for {' and '.join(empty)}",
                f"none among the {count} fields of {self.card.task}",
                "Add fields, or choose another split.seed in the card before anything is trained on it.",
            )


def load_dataset(root: Path) -> Dataset:
    """List the pairs of a dataset folder. Raises DatasetError when the folder or its card is not in order."""
    root = Path(root)
    card = load_card(root)
    lows, highs = image_files(root / "low", card), image_files(root / "high", card)
    missing, orphans = sorted(set(lows) - set(highs)), sorted(set(highs) - set(lows))
    if missing:
        raise DatasetError(
            "a target in high/ for each input", f"none for {_some(missing)}", "Add or remove them."
        )
    if orphans:
        raise DatasetError(
            "an input in low/ for each target", f"none for {_some(orphans)}", "Add or remove them."
        )
    if not lows:
        raise DatasetError("pairs of TIFF images", f"empty folders low/ and high/ in {root}", "Add images.")
    sessions = load_ledger(root).sessions
    return Dataset(
        root, card, tuple(_pair(name, card, lows[name], highs[name], sessions) for name in sorted(lows))
    )


def split_of(field: str, card: Card) -> str:
    """The split of a field: where a hash of the card's split seed and its name falls among the fractions.

    Of overlapping fields, the name of the first one listed counts for all.
    """
    leader = next((group[0] for group in card.overlapping if field in group), field)
    digest = hashlib.sha256(f"{card.split.seed}:{leader}".encode()).digest()
    position, reached = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for name in SPLITS:
        reached += getattr(card.split, name)
        if position < reached:
            return name
    # fractions may add up to a hair below 1: the rest belongs to the last split that takes any
    return next(name for name in reversed(SPLITS) if getattr(card.split, name) > 0)


def _file_digest(path: Path) -> bytes:
    """Of a file's bytes; of a folder, the names and bytes of all files in it."""
    if path.is_dir():
        total = hashlib.sha256()
        for part in sorted(part for part in path.rglob("*") if part.is_file()):
            total.update(hashlib.sha256(part.relative_to(path).as_posix().encode()).digest())
            total.update(_file_digest(part))
        return total.digest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DatasetError(f"to read {path}", error.strerror or str(error), "Restore the file.") from error


def image_files(folder: Path, card: Card | None = None) -> dict[str, Path]:
    """Image files of a folder by name; hidden files and litter are passed over, the rest is refused."""
    if not folder.is_dir():
        simulated = folder.name == "low" and card is not None and card.inputs == "simulated"
        remedy = (
            f"Run `python -m cvdm simulate --data {folder.parent}`."
            if simulated
            else "Create it with its images."
        )
        raise DatasetError(f"a folder {folder}", "none", remedy)
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in LITTER:
            continue
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            raise DatasetError(
                "names of letters that UTF-8 can write", repr(path.name), "Rename the file."
            ) from error
        known = FOLDER_SUFFIXES if path.is_dir() else SUFFIXES
        suffix = next((s for s in known if path.name.lower().endswith(s)), None)
        odd = not (
            path.is_dir() or path.is_file() or path.is_symlink()
        )  # a pipe, say, which reading waits for
        if suffix is None or odd:
            raise DatasetError(
                f"only images in {folder}: {', '.join((*SUFFIXES, *FOLDER_SUFFIXES))}",
                path.name,
                "Move it elsewhere or convert it.",
            )
        name = path.name[: -len(suffix)]
        if name in images:
            raise DatasetError(
                "one file per name", f"{images[name].name} and {path.name}", "Remove one of them."
            )
        images[name] = path
    return images


def _pair(name: str, card: Card, low: Path, high: Path, sessions: Mapping[str, str]) -> Pair:
    match = re.fullmatch(card.name_pattern, name)
    if match is None or not match["field"]:
        raise DatasetError(
            f"names that match the card's name_pattern {card.name_pattern}",
            f"'{name}'",
            "Rename the file in low/ and high/, or correct the pattern.",
        )
    session = sessions.get(name, match.groupdict().get("session"))
    return Pair(name, match["field"], session, low, high, card.sight, card.target_units)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
