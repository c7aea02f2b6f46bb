"""The card of a new task, from as little as a pattern of names."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from cvdm.card import CARD_NAME, SPLITS, Card, Split, load_card
from cvdm.dataset import image_files
from cvdm.errors import ConfigError, DatasetError
from cvdm.storage import replacing, storage_error
from flows.transfer import same_content
from flows.validation.features import SIDES


@dataclass(frozen=True)
class LentCard:
    """A card of a task, for the duration of a block."""

    file: Path
    """In a folder with nothing else that matters."""
    made: bool = False
    """Whether it was made from a pattern of names, so that nobody has chosen its split yet."""


@contextmanager
def card_for(
    source: Path, home: Path, scratch: Path, brought: Path | None = None, name_pattern: str | None = None
) -> Iterator[LentCard]:
    """Lend the card of a task: the one that is there, the one that came, or one made from a pattern of names.

    source, home: the batch and the task's folder, which bears its name. scratch: a folder for a new card.
    brought, name_pattern: what a person says of a new task: its card, or how its names tell the field.
    Raises ConfigError, DatasetError, StorageError.
    """
    task = home.name
    with _emptied(scratch):
        card = scratch / CARD_NAME
        if home.is_dir():
            _require_card(home)
            if not _says_the_same(home, brought, name_pattern):
                raise ConfigError(
                    f"no other --card or --name-pattern, because {task} has a card",
                    "another one",
                    f"Leave it out; to change the card, edit {CARD_NAME} in the task's folder.",
                )
            yield LentCard(home / CARD_NAME)
        elif brought is not None:
            try:
                shutil.copyfile(brought, card)
            except OSError as error:
                raise ConfigError(
                    f"a card at {brought}", error.strerror or str(error), "Check the path."
                ) from error
            _require_pattern(card, name_pattern)
            yield LentCard(card)
        elif (source / CARD_NAME).is_file():
            _require_pattern(source / CARD_NAME, name_pattern)
            yield LentCard(source / CARD_NAME)
        else:
            names = sorted({name for side in SIDES for name in image_files(source / side)})
            if not names:
                raise DatasetError("pairs of images", f"none in {source}", "Add images to low/ and high/.")
            if name_pattern is None:
                raise ConfigError(
                    f"a card or a name pattern for the new task {task}",
                    f"neither --card, --name-pattern nor a {CARD_NAME} in the batch",
                    example(names),
                )
            _require_fit(name_pattern, names)
            write_card(card, Card(task=task, name_pattern=name_pattern, split=Split()))
            yield LentCard(card, made=True)


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """An empty folder for the block; what a process that was killed has left there goes, too."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _says_the_same(home: Path, brought: Path | None, name_pattern: str | None) -> bool:
    """Whether what was said of the card is what the present card says, as when a command is repeated."""
    if brought is not None:
        return brought.is_file() and same_content(brought, home / CARD_NAME)
    return name_pattern in (None, load_card(home).name_pattern)


def _require_card(home: Path) -> None:
    if not (home / CARD_NAME).is_file():
        raise DatasetError(
            f"{CARD_NAME} in {home}", "none", "Write one there, or move the folder away and ingest it anew."
        )


def _require_pattern(card: Path, name_pattern: str | None) -> None:
    """Raise ConfigError where a card and what was said beside it name fields in two ways."""
    own = load_card(card.parent).name_pattern
    if name_pattern not in (None, own):
        raise ConfigError(
            "no other --name-pattern, because there is a card",
            f"'{name_pattern}', where the card has '{own}'",
            "Leave it out, or correct the card.",
        )


def _require_fit(name_pattern: str, names: Sequence[str]) -> None:
    """Raise ConfigError for a pattern that names no field of a batch, DatasetError for what is no pattern."""
    Card(task="new", name_pattern=name_pattern, split=Split())
    matches = [re.fullmatch(name_pattern, name) for name in names]
    if not any(match and match["field"] for match in matches):
        raise ConfigError(
            "a name pattern that fits the batch",
            f"'{name_pattern}', which fits none of its names",
            example(names),
        )


def write_card(path: Path, card: Card) -> None:
    """Write what a card of a new task says, with gaps for what a person knows. Raises StorageError."""
    content = {
        "task": card.task,
        "name_pattern": card.name_pattern,
        "inputs": card.inputs,
        "split": {name: getattr(card.split, name) for name in ("seed", *SPLITS)},
        "pixel_size_um": None,
        "numerical_aperture": None,
        "wavelength_nm": None,
        "structure": None,
        "modality": None,
        "licence": None,
        "citation": None,
    }
    with replacing(path) as temporary:
        head = (
            "# Dataset card; keys are documented in cvdm/card.py. null: not stated, fill in what you know.\n"
        )
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        temporary.write_text(head + text, encoding="utf-8")


def example(names: Sequence[str]) -> str:
    """How a pattern for these names could look: the most telling of those that fit the most names."""
    fits = {
        pattern: sum(re.fullmatch(pattern, name) is not None for name in names)
        for pattern in _guesses(names[0])
    }
    pattern = max(fits, key=lambda one: fits[one])
    field = re.fullmatch(pattern, names[0])["field"]  # type: ignore[index]  # made from this name
    return (
        f"For '{names[0]}', --name-pattern '{pattern}' makes the field '{field}'; "
        f"it fits {fits[pattern]} of {len(names)} names."
    )


def _guesses(name: str) -> tuple[str, ...]:
    """Patterns for a name, the most telling first: its first part, numbers or all generalised; all of it."""
    parts = re.fullmatch(r"([_\-. ]*[^_\-. ]+)([_\-. ]?)(.*)", name, re.DOTALL)
    stem, separator, rest = parts.groups() if parts else (name, "", "")

    def general(text: str) -> str:
        return re.sub(r"\d+", lambda _: r"\d+", re.escape(text).replace(r"\-", "-"))

    telling = f"(?P<field>{general(stem)}){general(separator + rest)}"
    loose = rf"(?P<field>[^{separator}]+){general(separator + rest)}" if separator else telling
    return telling, loose, "(?P<field>.+)"
