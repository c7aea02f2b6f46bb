"""The card of a new task, from as little as a pattern of names."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml

from cvdm.card import CARD_NAME, SPLITS, Card, Split, load_card
from cvdm.dataset import image_files, split_of
from cvdm.errors import ConfigError, DatasetError
from cvdm.storage import replacing
from flows.ingest_result import IngestOptions
from flows.transfer import same_content
from flows.validation.features import SIDES

SEEDS = 10_000
"""Of the split that are tried, so that every split gets a field."""


@contextmanager
def card_for(source: Path, home: Path, own: Path, options: IngestOptions) -> Iterator[Path]:
    """Lend the card of a task: the one that is there, the one that came, or one made from a pattern of names.

    source, home: the batch and the task's folder, which bears its name.
    own:          where a card may be put for the block.
    Raises ConfigError, DatasetError, StorageError.
    """
    task = home.name
    try:
        if home.is_dir():
            if not _says_the_same(home, options):
                raise ConfigError(
                    f"no other --card or --name-pattern, because {task} has a card",
                    "another one",
                    f"Leave it out; to change the card, edit {CARD_NAME} in the task's folder.",
                )
            yield home / CARD_NAME
        elif options.card is not None:
            own.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(options.card, own)
            except OSError as error:
                raise ConfigError(
                    f"a card at {options.card}", error.strerror or str(error), "Check the path."
                ) from error
            yield own
        elif (source / CARD_NAME).is_file():
            yield source / CARD_NAME
        else:
            names = sorted({name for side in SIDES for name in image_files(source / side)})
            if not names:
                raise DatasetError("pairs of images", f"none in {source}", "Add images to low/ and high/.")
            if options.name_pattern is None:
                raise ConfigError(
                    f"a card or a name pattern for the new task {task}",
                    f"neither --card, --name-pattern nor a {CARD_NAME} in the batch",
                    example(names),
                )
            write_card(own, task, options.name_pattern, names)
            yield own
    finally:
        shutil.rmtree(own.parent, ignore_errors=True)


def _says_the_same(home: Path, options: IngestOptions) -> bool:
    """Whether what was said of the card is what the present card says, as when a command is repeated."""
    if options.card is not None:
        return options.card.is_file() and same_content(options.card, home / CARD_NAME)
    return options.name_pattern in (None, load_card(home).name_pattern)


def write_card(path: Path, task: str, name_pattern: str, names: Sequence[str]) -> None:
    """Write a card that states the task, its pattern and a split.

    Raises ConfigError for a pattern that fits nothing, DatasetError for one that is no pattern, StorageError.

    names: of the first batch's pairs. The split's seed is the smallest at which each split gets one of their
    fields; later fields do not move them.
    """
    card = Card(task=task, name_pattern=name_pattern, split=Split())
    matches = [re.fullmatch(name_pattern, name) for name in names]
    fields = sorted({match["field"] for match in matches if match and match["field"]})
    if not fields:
        raise ConfigError(
            "a name pattern that fits the batch",
            f"'{name_pattern}', which fits none of its names",
            example(names),
        )
    split = _dealing_to_all(card, fields)
    content = {
        "task": task,
        "name_pattern": name_pattern,
        "inputs": card.inputs,
        "split": {name: getattr(split, name) for name in ("seed", *SPLITS)},
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
    """How a pattern for these names could look."""
    name = names[0]
    stem, pattern = _guess(name)
    return f"For '{name}', --name-pattern '{pattern}' makes the field '{stem}'."


def _guess(name: str) -> tuple[str, str]:
    """The part of a name up to its first separator as the field, its numbers generalised."""
    stem, separator, rest = re.fullmatch(r"([^_\-. ]+)([_\-. ]?)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]  # matches any name

    def general(text: str) -> str:
        return re.sub(r"\d+", lambda _: r"\d+", re.escape(text))

    return stem, f"(?P<field>{general(stem)}){general(separator + rest)}"


def _dealing_to_all(card: Card, fields: Sequence[str]) -> Split:
    """The split of the smallest seed at which no split is empty; of seed 0 where there are too few fields."""
    if len(fields) >= len(SPLITS):
        for seed in range(SEEDS):
            split = replace(card.split, seed=seed)
            dealt = replace(card, split=split)
            if {split_of(field, dealt) for field in fields} == set(SPLITS):
                return split
    return card.split
