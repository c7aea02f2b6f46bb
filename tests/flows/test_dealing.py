"""A new task's fields are dealt as its fractions ask, scenes stay together, and nothing but names decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from cvdm.card import SPLITS, Card, Split
from cvdm.dataset import split_of
from flows.validation.dealing import balanced_split


def card(**shares):
    return Card(task="test-cells", name_pattern="(?P<field>.+)", split=Split(**shares))


def dealt(split, fields, scenes=()):
    by = replace(card(), split=split, overlapping=tuple(scenes))
    return {field: split_of(field, by) for field in fields}


@pytest.mark.parametrize("count", [6, 10, 19, 40, 200])
@pytest.mark.parametrize("prefix", ["f", "slide-3_pos"])
def test_each_split_gets_its_share(count, prefix):
    """No split is more than two fields away from its fraction, or 2 %; none is empty."""
    fields = [f"{prefix}{number}" for number in range(count)]
    split = balanced_split(card(), fields, ())
    counts = Counter(dealt(split, fields).values())
    for name in SPLITS:
        assert counts[name] and abs(counts[name] - getattr(split, name) * count) <= max(2, 0.02 * count)
    assert replace(split, seed=0) == Split()


def test_scenes_count_once_where_fields_count_as_independent():
    """The nineteen fields of the confocal set, four scenes of them: dealt well, no scene twice in a test."""
    fields = [f"fov{number:02d}" for number in range(1, 20)]
    scenes = [fields[0:2], fields[5:7], fields[12:15], fields[15:18]]
    split = balanced_split(card(train=0.5, validation=0.1, calibration=0.2, test=0.2), fields, scenes)
    found = dealt(split, fields, scenes)
    for scene in scenes:
        assert len({found[field] for field in scene}) == 1
        assert found[scene[0]] not in ("calibration", "test")
    assert Counter(found.values())["train"] in (9, 10, 11)


def test_the_same_names_are_dealt_the_same():
    """In whatever order, however often."""
    fields = ["b", "a", "d", "c", "e", "f"]
    assert balanced_split(card(), fields, ()) == balanced_split(card(), sorted(fields) * 2, ())


@pytest.mark.parametrize("fields", [[], ["a"], ["a", "b", "c"]])
def test_too_few_fields_are_dealt_all_the_same(fields):
    """There is always a split; validation says which ones are empty."""
    assert set(dealt(balanced_split(card(), fields, ()), fields)) == set(fields)


def test_a_split_that_takes_none_stays_empty():
    """A fraction of 0 is a wish."""
    fields = [f"f{number}" for number in range(20)]
    split = balanced_split(card(train=0.5, validation=0, calibration=0, test=0.5), fields, ())
    assert Counter(dealt(split, fields).values()) == {"train": 10, "test": 10}
