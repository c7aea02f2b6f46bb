"""The future of a dataset, built beside the present one: existing files are linked, new ones copied."""

from __future__ import annotations

import ctypes
import filecmp
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cvdm.card import CARD_NAME, load_card
from cvdm.dataset import image_files
from cvdm.errors import DatasetError
from cvdm.storage import storage_error
from flows.validation.features import SIDES

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux's renameat2."""
ASIDE = ".before"
"""Suffix of the present dataset while the two renames of `swap` are under way."""


@dataclass(frozen=True)
class Batch:
    """A dataset with a batch in it, not yet in its place."""

    folder: Path
    added: tuple[str, ...]
    """Names of the new pairs."""
    known: int
    """Pairs of the batch that were there already, byte for byte."""


@contextmanager
def staged(source: Path, home: Path, folder: Path) -> Iterator[Batch]:
    """The future dataset in `folder`, for the block; what is left of it afterwards is removed.

    Raises DatasetError when a name is taken by other bytes, StorageError when the disk refuses.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of an ingest that was killed
    card_file = home / CARD_NAME if home.is_dir() else source / CARD_NAME
    card = load_card(card_file.parent)
    batch = {side: image_files(source / side, card) for side in SIDES}
    present = {side: image_files(home / side, card) if home.is_dir() else {} for side in SIDES}
    names = sorted({*batch["low"], *batch["high"]})
    if not names:
        raise DatasetError("pairs of TIFF images", f"empty folders low/ and high/ in {source}", "Add images.")
    known = [name for name in names if all(name in present[side] for side in SIDES)]
    new = {
        side: {n: path for n, path in files.items() if n not in present[side]}
        for side, files in batch.items()
    }
    for side in SIDES:
        _refuse_other_bytes(batch[side], present[side], f"{home.name}/{side}")
    if (source / CARD_NAME).is_file():
        _refuse_other_bytes({"": source / CARD_NAME}, {"": card_file}, home.name)
    try:
        try:
            _fill(folder, home if home.is_dir() else None, card_file, new)
        except OSError as error:
            raise storage_error(error, folder) from error
        yield Batch(folder, tuple(name for name in names if name not in known), len(known))
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


def _refuse_other_bytes(batch: Mapping[str, Path], present: Mapping[str, Path], where: str) -> None:
    for name in sorted(set(batch) & set(present)):
        if not filecmp.cmp(batch[name], present[name], shallow=False):
            raise DatasetError(
                f"new names for new content; {where}/{present[name].name} exists",
                f"other content in {batch[name]}",
                "Rename or remove it. Nothing is ever overwritten.",
            )


def _exchange(one: Path, other: Path) -> bool:
    """Linux swaps two names in one step, so that a kill cannot fall in between; False where it cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)


def _fill(folder: Path, home: Path | None, card_file: Path, new: dict[str, dict[str, Path]]) -> None:
    """Link what is there, copy what is new."""
    if home is not None:
        shutil.copytree(home, folder, copy_function=_link, symlinks=True)
    for side in SIDES:
        (folder / side).mkdir(parents=True, exist_ok=True)
        for path in new[side].values():
            shutil.copyfile(path, folder / side / path.name)
    if home is None:
        for extra in (card_file, *card_file.parent.glob("LICENSE*"), *card_file.parent.glob("ATTRIBUTION*")):
            shutil.copyfile(extra, folder / extra.name)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target, follow_symlinks=False)
