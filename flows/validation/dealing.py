"""The seed at which a new task's fields are dealt to the splits as its fractions ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cvdm.card import SPLITS, Card, Split
from cvdm.dataset import split_of

SEEDS = 1000
"""Seeds that are tried; few fields are dealt well by one of the first hundred."""
INDEPENDENT = ("calibration", "test")
"""Splits whose fields count as independent of each other, so that a scene should be there once."""
GOOD_ENOUGH = 2.0
"""Fields too many or too few, over all splits, at which no further seed is tried: one field amiss."""
REPEATED = 3.0
"""What a field costs that repeats a scene where scenes should differ: more than what is good enough."""


def balanced_split(card: Card, fields: Iterable[str], scenes: Iterable[Sequence[str]]) -> Split:
    """The card's split with the smallest seed of those that deal the fields best.

    fields, scenes: all fields that there are so far, and the groups of them that must stay together. Names
    and scenes decide, never what a model makes of the images; fields that come later move none of them.
    """
    fields = tuple(sorted(set(fields)))
    grouped = replace(card, overlapping=tuple(tuple(scene) for scene in scenes))
    best, least = card.split, float("inf")
    for seed in range(SEEDS):
        split = replace(card.split, seed=seed)
        amiss = _amiss(replace(grouped, split=split), fields)
        if amiss < least:
            best, least = split, amiss
        if least <= GOOD_ENOUGH:
            break
    return best


def _amiss(card: Card, fields: Sequence[str]) -> float:
    """How many fields are too many or too few in a split, or repeat a scene where scenes should differ."""
    dealt = {field: split_of(field, card) for field in fields}
    counts = Counter(dealt.values())
    amiss = sum(abs(counts[name] - getattr(card.split, name) * len(fields)) for name in SPLITS)
    # an empty split costs more than any imbalance: without it nothing can be calibrated or judged
    amiss += len(fields) * sum(counts[name] == 0 for name in SPLITS if getattr(card.split, name) > 0)
    for scene in card.overlapping:
        inside = Counter(dealt[field] for field in scene if field in dealt)
        amiss += REPEATED * sum(max(0, inside[name] - 1) for name in INDEPENDENT)
    return amiss
