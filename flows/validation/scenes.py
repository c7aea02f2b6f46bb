"""Which scenes the new fields of a batch share with each other and with present ones, and who leads each.

The first field of a group leads the others to its split. A present field never moves: a scene that would
bring together present fields of two splits is none, and its new fields are refused by the checks; and a
scene that touches a group which is there already is led as that group is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from cvdm.card import Card
from cvdm.dataset import split_of
from cvdm.ledger import joined
from flows.validation.comparing import same_scenes
from flows.validation.measuring import Measurements

Scene = tuple[str, ...]


def scenes_of_new_fields(
    card: Card, measured: Measurements, new: Collection[str], score: float
) -> tuple[Scene, ...]:
    """Scenes with a new field in them, whoever leads first.

    new: names of the batch's pairs; score: from which targets count as one scene.
    """
    present = {row.field for row in measured.rows if row.name not in new}
    found: tuple[Scene, ...] = ()
    for scene in same_scenes(measured.rows, measured.fingerprints, score):
        so_far = grouped(card, found)
        touched = [group for group in so_far.overlapping if not set(group).isdisjoint(scene)]
        together = dict.fromkeys(field for group in (*touched, scene) for field in group)
        there = [field for field in together if field in present]
        coming = [field for field in scene if field not in present]
        if coming and len({split_of(field, so_far) for field in there}) <= 1:
            leader = _leader(there, touched) or scene[0]
            found += (tuple(dict.fromkeys((leader, *scene))),)
    return found


def _leader(there: Iterable[str], touched: Iterable[Scene]) -> str | None:
    """Who leads the first present field, or else the first group that a scene touches."""
    for field in there:
        return next((group[0] for group in touched if field in group), field)
    return next((group[0] for group in touched), None)


def among(
    scenes: Iterable[Scene], card: Card, kept: Measurements, refused: Collection[str]
) -> tuple[Scene, ...]:
    """What is left of scenes without refused fields, unless these lead a group of the card.

    refused: new fields of which no pair is kept.
    """
    leaders = {group[0] for group in card.overlapping}
    gone = set(refused) - leaders
    fields = {row.field for row in kept.rows}
    left = (tuple(field for field in scene if field not in gone) for scene in scenes)
    return tuple(scene for scene in left if len(scene) > 1 and not fields.isdisjoint(scene))


def grouped(card: Card, scenes: Iterable[Scene]) -> Card:
    """The card by which fields are dealt when these scenes stay together, too; as the ledger will have it."""
    return replace(card, overlapping=joined((*scenes, *card.overlapping)))
