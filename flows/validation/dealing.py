"""The seed at which a new task's fields are dealt to the splits as its fractions ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from cvdm.card import SPLITS, Card, Split
from cvdm.dataset import split_of

SEEDS = 1000
"""Seeds that are tried; few fields are dealt well by one of the first hundred."""
INDEPENDENT = ("calibration", "test")
"""Splits whose fields count as independent of each other, so that a scene should be there once."""
FEWEST_AMISS, SHARE_AMISS = 2.0, 0.02
"""Fields too many or too few, over all splits, at which no further seed is tried: at least, and of all."""
REPEATED = 3.0
"""What a field costs that repeats a scene where scenes should differ: more than the fewest amiss."""


def balanced_split(card: Card, fields: Iterable[str], scenes: Collection[Sequence[str]]) -> Split:
    """The card's split with the smallest seed of those that deal the fields best.

    fields, scenes: all fields that there are so far, and the groups of them that must stay together. Names
    and scenes decide, never what a model makes of the images; fields that come later move none of them.
    """
    fields = set(fields)
    followers = [set(scene) & fields - {scene[0]} for scene in scenes]
    # whoever leads a scene stands for all of it
    sizes = {scene[0]: 1 + len(some) for scene, some in zip(scenes, followers, strict=True)}
    sizes |= dict.fromkeys(sorted(fields.difference(*followers, sizes)), 1)
    alone, best, least = replace(card, overlapping=()), card.split, float("inf")
    enough = max(FEWEST_AMISS, SHARE_AMISS * len(fields))
    for seed in range(SEEDS):
        split = replace(card.split, seed=seed)
        amiss = _amiss(replace(alone, split=split), sizes)
        if amiss < least:
            best, least = split, amiss
        if least <= enough:
            break
    return best


def _amiss(card: Card, sizes: Mapping[str, int]) -> float:
    """How many fields are too many or too few in a split, or repeat a scene where scenes should differ.

    sizes: fields of each scene, by the one that leads it.
    """
    counts: Counter[str] = Counter()
    repeated = 0
    for leader, size in sizes.items():
        split = split_of(leader, card)
        counts[split] += size
        repeated += size - 1 if split in INDEPENDENT else 0
    total = counts.total()
    amiss = sum(abs(counts[name] - getattr(card.split, name) * total) for name in SPLITS)
    # an empty split costs more than any imbalance: without it nothing can be calibrated or judged
    empty = sum(counts[name] == 0 for name in SPLITS if getattr(card.split, name) > 0)
    return amiss + total * empty + REPEATED * repeated
