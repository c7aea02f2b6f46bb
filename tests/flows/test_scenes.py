"""Scenes of a batch: found in the pixels, led so that no present field moves, whatever the card groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from specimens import noisy

from cvdm.card import Card, Split
from cvdm.dataset import split_of
from cvdm.images import write_tiff
from cvdm.ledger import joined
from flows.validation import ValidationPolicy
from flows.validation.batch import judge_batch
from flows.validation.comparing import compare
from flows.validation.measuring import files_of, measure
from flows.validation.scenes import among, grouped, scenes_of_new_fields

SCORE = ValidationPolicy().near_duplicate_score


def discs(seed, size=256):
    """A crowded scene (size, size) that no other seed's resembles."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    image = np.full((size, size), 12.0)
    for _ in range(40):
        row, column, radius = *rng.uniform(0, size, 2), rng.uniform(4, 12)
        image += rng.uniform(30, 120) / (1 + np.exp(np.hypot(rows - row, columns - column) - radius))
    return np.minimum(image, 220).astype(np.float32)


@pytest.fixture
def make(tmp_path):
    """Write fields by the scene that each shows, and measure them: {field: pixels}."""

    def written(fields, card):
        rng = np.random.default_rng(1)
        for name, clean in fields.items():
            for side, image in (("low", noisy(clean, rng)), ("high", clean + rng.normal(0, 1, clean.shape))):
                (tmp_path / side).mkdir(exist_ok=True)
                write_tiff(tmp_path / side / f"{name}.tif", np.clip(np.round(image), 0, 255).astype(np.uint8))
        return measure(files_of(tmp_path, card), card, workers=1)

    return written


def card_where(wanted, **groups):
    """A card under whose seed each field, on its own, is in the split that is wanted."""
    for seed in range(100_000):
        card = Card(task="cells", name_pattern="(?P<field>.+)", split=Split(seed, 0.4, 0.2, 0.2, 0.2))
        if all(split_of(field, card) == split for field, split in wanted.items()):
            return replace(card, **groups)
    raise AssertionError(wanted)


def as_recorded(card, scenes):
    """The card as it is read again when an ingest has written these scenes into a new ledger."""
    return replace(card, overlapping=joined((*scenes, *card.overlapping)))


def test_a_leader_that_is_only_listed_goes_on_leading(make):
    """The card names a field without images first: the present one follows it, and so does a new one."""
    card = card_where({"a": "train", "b": "test"}, overlapping=(("a", "b", "c"),))
    same, other = discs(1), discs(2)
    measured = make({"b": same, "c": same[:, ::-1], "d": other}, card)
    (scene,) = found = scenes_of_new_fields(card, measured, {"c"}, SCORE)
    assert scene[0] == "a" and set(scene) == {"a", "b", "c"}
    left = among(found, card, measured, set())
    after = as_recorded(card, left)
    assert [split_of(field, after) for field in "bc"] == ["train", "train"]
    assert grouped(card, left) == after


def test_new_fields_alone_are_led_as_the_card_says(make):
    """In the order of its group, not in that of names."""
    card = card_where({"a": "test", "b": "train"}, overlapping=(("b", "a"),))
    measured = make({"a": discs(1), "b": discs(1)[:, ::-1], "d": discs(2)}, card)
    found = scenes_of_new_fields(card, measured, {"a", "b", "d"}, SCORE)
    assert split_of("a", as_recorded(card, found)) == "train" == split_of("a", grouped(card, found))


def test_a_new_field_never_pulls_a_present_one_over(make):
    """The card groups it with one of another split than the one that it looks like: no scene, a refusal."""
    card = card_where({"a": "test", "b": "train"}, overlapping=(("a", "c"),))
    measured = make({"a": discs(1), "b": discs(2), "c": discs(2)[:, ::-1], "d": discs(3)}, card)
    assert scenes_of_new_fields(card, measured, {"c"}, SCORE) == ()
    rows = compare(measured.dealt(card), card, score=SCORE, new={"c"})
    assert next(row for row in rows if row.name == "c").lookalike_across == "b"


def test_two_scenes_that_meet_in_the_card_are_judged_together(make):
    """Each for itself would do; through the card's group they would join two splits."""
    card = card_where({"a": "test", "b": "train"}, overlapping=(("y", "z"),))
    fields = {"a": discs(1), "b": discs(2), "y": discs(1)[:, ::-1], "z": discs(2)[:, ::-1]}
    measured = make(fields, card)
    found = scenes_of_new_fields(card, measured, {"y", "z"}, SCORE)
    after = as_recorded(card, found)
    assert len(found) == 1 and [split_of(field, after) for field in "ab"] == ["test", "train"]


def test_a_refused_leader_goes_on_leading_present_fields_only(make):
    """It leads a group of the card: kept, for a present field follows it; else another one leads."""
    listed = card_where({"a": "train", "b": "test"}, overlapping=(("a", "b"),))
    plain = replace(listed, overlapping=())
    measured = make({"a": discs(1), "b": discs(1)[:, ::-1], "c": discs(1)[::-1], "d": discs(2)}, plain)
    kept = measured.without({"a"})
    for card, new, left in ((listed, {"a", "c"}, ("a", "b", "c")), (plain, {"a", "b", "c"}, ("b", "c"))):
        found = scenes_of_new_fields(card, measured, new, SCORE)
        assert among(found, card, kept, {"a"}) == (left,)


@pytest.mark.parametrize("names", [("a", "b"), ("x", "y")])
def test_every_copy_of_a_present_pair_is_refused(make, names, tmp_path):
    """However many come at once, and wherever their names sort."""
    card = card_where(dict.fromkeys(("m", *names), "train"))
    fields = {"m": discs(1), "n": discs(2)} | {f"o{number}": discs(10 + number) for number in range(3)}
    make(fields, card)
    for name in names:
        for side in ("low", "high"):
            (tmp_path / side / f"{name}.tif").write_bytes((tmp_path / side / "m.tif").read_bytes())
    measured = measure(files_of(tmp_path, card), card, workers=1)
    verdict = judge_batch(tmp_path, card, measured, set(names), ValidationPolicy())
    assert {one.name for one in verdict.rejected if one.check == "copy"} == set(names)
    # what the page shows says the same
    assert set(names) <= verdict.everything.rejected_names
    assert not [one for one in verdict.everything.warnings if one.name in names and one.check == "copy"]


def test_a_twin_in_its_split_hides_no_scene_in_another(make, tmp_path):
    """Two new fields with one target, parts of which are present in two splits."""
    card = card_where({"p": "test", "q": "train", "x": "train", "y": "train"})
    whole = discs(1, 320)
    make({"p": whole[:, :200], "q": whole[:, 120:], "x": whole, "y": whole, "d": discs(2)}, card)
    (tmp_path / "high" / "y.tif").write_bytes((tmp_path / "high" / "x.tif").read_bytes())
    measured = measure(files_of(tmp_path, card), card, workers=1)
    rows = {row.name: row for row in compare(measured.dealt(card), card, score=SCORE, new={"x", "y"})}
    assert [rows[name].high.twin_in_split for name in "xy"] == ["y", "x"]
    assert [rows[name].lookalike_across for name in "xy"] == ["p", "p"]
