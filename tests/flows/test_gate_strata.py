"""Strata: what kinds of fields there are follows from images and sessions, not from a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from specimens import cells

from cvdm.dataset import Pair
from cvdm.images import write_tiff
from flows.gate.strata import gradient_energy, strata_of


@pytest.fixture
def pairs(tmp_path) -> list[Pair]:
    """Four fields: a and b with little noise, b and d with fine structure; two captures of a."""
    rng, made = np.random.default_rng(0), []
    for field, noise in (("a", 2), ("a", 3), ("b", 2), ("c", 60), ("d", 60)):
        target = cells(rng, 96)
        if field in "bd":
            target = target + 40 * np.sin(np.arange(96))[None]
        name = f"{field}_{len(made)}"
        low, high = tmp_path / f"low-{name}.tif", tmp_path / f"high-{name}.tif"
        write_tiff(low, (target + rng.normal(0, noise, target.shape) + 300).astype(np.float32))
        write_tiff(high, target.astype(np.float32))
        made.append(Pair(name, field, None, low, high))
    return made


def test_structure_and_input_split_the_fields_in_halves(pairs):
    """Fields with planted stripes are the fine ones, those with planted noise the dim ones."""
    strata = strata_of(pairs)
    assert strata["structure"] == dict.fromkeys("ac", "coarse structure") | dict.fromkeys(
        "bd", "fine structure"
    )
    assert strata["input"] == dict.fromkeys("ab", "bright input") | dict.fromkeys("cd", "dim input")
    assert "session" not in strata


def test_sessions_are_strata_where_there_are_several(pairs):
    """A field with captures of two sessions belongs to the first; a single session is no stratum."""
    days = [replace(pair, session=day) for pair, day in zip(pairs, "mttww", strict=True)]
    sessions = {"a": "session m", "b": "session t", "c": "session w", "d": "session w"}
    assert strata_of(days)["session"] == sessions
    assert "session" not in strata_of([replace(pair, session="m") for pair in pairs])


def test_gradient_energy_does_not_depend_on_the_intensity_scale():
    """Gain and offset of a detector make no structure."""
    image = cells(np.random.default_rng(3))
    assert gradient_energy(7 * image + 100) == pytest.approx(gradient_energy(image))
    assert gradient_energy(np.full((16, 16), 5.0)) == 0
