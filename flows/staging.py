"""The future of a dataset, built beside the present one: existing files are linked, new ones copied."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cvdm.card import CARD_NAME, load_card
from cvdm.ledger import LEDGER_NAME
from cvdm.storage import storage_error
from flows.transfer import copied, linked, removed
from flows.validation.batch import Arrivals, arrivals, require_same_card
from flows.validation.features import SIDES
from flows.validation.measuring import PairFiles, files_of

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux's renameat2."""
ASIDE = ".before"
"""Suffix of the present dataset while the two renames of `swap` are under way."""


@dataclass(frozen=True)
class Batch:
    """A dataset with a batch in it, not yet in its place."""

    folder: Path
    arrivals: Arrivals
    """The pairs of the batch where they came from; those that clash are not in `folder`."""
    copied: frozenset[Path]
    """Images in `folder` that came from the batch; all others were there."""

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the new pairs."""
        return tuple(pair.name for pair in self.arrivals.new)

    def remove(self, names: Iterable[str]) -> None:
        """Take new pairs out of the future dataset again. Raises StorageError."""
        gone = set(names)
        try:
            for pair in self.arrivals.new:
                for side in SIDES if pair.name in gone else ():
                    source = getattr(pair, side)
                    if source is not None and self.folder / side / source.name in self.copied:
                        removed(self.folder / side / source.name)
        except OSError as error:
            raise storage_error(error, self.folder) from error


@contextmanager
def staged(source: Path, home: Path, folder: Path, card_file: Path) -> Iterator[Batch]:
    """The future dataset in `folder`, for the block; what is left of it afterwards is removed.

    card_file: of the dataset in `home`, or of the new one. Raises DatasetError for a folder that is no batch,
    StorageError when the disk refuses.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of an ingest that was killed
    card = load_card(card_file.parent)
    batch = arrivals(files_of(source, card), files_of(home, card) if home.is_dir() else ())
    require_same_card(source, card_file, home.name)
    try:
        try:
            came = _fill(folder, home if home.is_dir() else None, batch.new)
            if not home.is_dir():
                # with a dataset comes what its ingests found out: sessions, and scenes that share a split
                for extra in (*source.glob("LICENSE*"), *source.glob("ATTRIBUTION*"), source / LEDGER_NAME):
                    if extra.is_file():
                        shutil.copyfile(extra, folder / extra.name)
                shutil.copyfile(card_file, folder / CARD_NAME)
        except OSError as error:
            raise storage_error(error, folder) from error
        yield Batch(folder, batch, came)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # somebody else's batch is in there
            folder.parent.rmdir()


def swap(one: Path, other: Path) -> None:
    """Exchange two folders of one file system; `other` may be missing. Raises StorageError."""
    try:
        if not other.exists():
            other.parent.mkdir(parents=True, exist_ok=True)
            one.rename(other)
        elif not _exchange(one, other):
            aside = one.with_name(f"{one.name}{ASIDE}")
            other.rename(aside)
            try:
                one.rename(other)
            except OSError:
                aside.rename(other)
                raise
            aside.rename(one)
    except OSError as error:
        raise storage_error(error, other) from error


def clear(incoming: Path) -> None:
    """Remove what killed ingests left in `incoming`, the folder of staged datasets within the data folder.

    A dataset that a kill between the renames of `swap` left without its place is put back first.
    Raises StorageError.
    """
    try:
        for aside in incoming.glob(f"*{ASIDE}"):
            home = incoming.parent / aside.name.removesuffix(ASIDE)
            if not home.exists():
                aside.rename(home)
        if incoming.exists():
            shutil.rmtree(incoming)
    except OSError as error:
        raise storage_error(error, incoming) from error


def _exchange(one: Path, other: Path) -> bool:
    """Linux swaps two names in one step, so that a kill cannot fall in between; False where it cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)


def _fill(folder: Path, home: Path | None, new: Iterable[PairFiles]) -> frozenset[Path]:
    """Link what is there, copy what is new; returns the copies."""
    if home is not None:
        shutil.copytree(home, folder, copy_function=linked, symlinks=True)
    for side in SIDES:
        (folder / side).mkdir(parents=True, exist_ok=True)
    came = set()
    for pair in new:
        for side, source in (("low", pair.low), ("high", pair.high)):
            if source is not None and not (target := folder / side / source.name).exists():
                copied(source, target)
                came.add(target)
    return frozenset(came)
