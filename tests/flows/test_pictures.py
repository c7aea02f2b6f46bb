"""Pictures: each is a PNG of a sensible size, and its windows depend on the target, not on the model."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from specimens import cells

from cvdm.config import ScheduleConfig
from cvdm.evaluation import Evaluation
from cvdm.metrics import sparsification
from cvdm.observation import Observation
from cvdm.patches import ImagePair
from cvdm.posterior import Reconstruction
from cvdm.schedule import ScheduleExtremes, build_schedule, schedule_curves
from cvdm.validation import Panel
from flows import drawing, pictures, schedule_pictures, strata_picture
from flows.drawing import ImagePart, new_figure, show_image
from flows.exhibits import CalibrationCurve, Shown, ring_curves


def opened(png: bytes) -> np.ndarray:
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=float)
    assert image.shape[0] > 150 and image.shape[1] > 250
    assert image.std() > 5, "not an empty page"
    return image


def scores(crps: float, fields: int = 3) -> Evaluation:
    names = [f"f{i}" for i in range(fields)]
    metrics = {"psnr_fit": 38.0, "ssim_fit": 0.95, "crps": crps, "coverage": 0.9}
    per_field = {name: dict.fromkeys(names, value) for name, value in metrics.items()}
    baselines = dict.fromkeys(("input", "best-blur", "richardson-lucy", "regression-mean"), per_field)
    schedule = ScheduleExtremes(True, True, 7.0, -7.0)
    return Evaluation("t", "test", per_field, baselines, 8, 10, "dpm-solver++", 0, 1.0, schedule)


@pytest.fixture
def field() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    high = cells(np.random.default_rng(0))
    low = high + np.random.default_rng(1).normal(0, 20, high.shape)
    return low, high, np.full_like(high, 4.0)


@pytest.mark.parametrize("kind", ["pinned", "separable", "cosine"])
def test_schedule_curves_of_any_schedule(kind):
    """Learned or fixed, a schedule draws."""
    schedule = build_schedule(ScheduleConfig(kind=kind, width=4))
    with torch.no_grad():
        curves = schedule_curves(schedule, schedule.paths(torch.randn(1, 1, 16, 16)))
    opened(schedule_pictures.schedule_curves(curves, "a schedule"))


def panel(low: np.ndarray, time_map: np.ndarray) -> Panel:
    return Panel("f0", low, low, low, low, time_map)


def test_schedule_maps_even_if_flat(field):
    """A fixed schedule has a constant map, which is a picture too; each field has a row of its own."""
    flat = panel(field[0], np.full_like(field[0], 0.5))
    one = opened(schedule_pictures.schedule_maps([flat], "a map"))
    two = opened(schedule_pictures.schedule_maps([flat, flat], "two maps"))
    assert two.shape[0] > 1.5 * one.shape[0]


def test_maps_have_one_colour_scale(field):
    """A map that varies half as much is drawn paler, instead of being stretched to the same colours."""
    wave = np.sin(np.arange(field[0].size)).reshape(field[0].shape)
    strong, weak = (
        opened(schedule_pictures.schedule_maps([panel(field[0], 0.4 + reach * wave)], "a map"))
        for reach in (0.04, 0.01)
    )
    assert strong.std(axis=2).mean() > 1.5 * weak.std(axis=2).mean()


def test_a_map_beyond_its_colours_says_so_by_an_arrow():
    """Only at the end where more than a few pixels lie beyond."""
    few, many = np.linspace(-0.05, 0.05, 1000), np.linspace(-0.05, 0.2, 1000)
    assert drawn_bar(few) == "neither" and drawn_bar(many) == "max" and drawn_bar(-many) == "min"
    assert drawn_bar(3 * np.concatenate([many, -many])) == "both"


def drawn_bar(values: np.ndarray) -> str:
    """Which ends of the colour bar have an arrow."""
    figure, axes = new_figure(1, 1, width=2, height=2)
    show_image(figure, axes[0], ImagePart(values.reshape(-1, 10), "", (-0.1, 0.1), "RdBu_r"))
    (image,) = axes[0].images
    assert image.colorbar is not None
    return str(image.colorbar.extend)


def test_a_removal_by_uncertainty_is_drawn_beside_the_best_one():
    """One curve for each field and their mean; the area between them is the AUSE of the picture's title."""
    rng = np.random.default_rng(0)
    error = rng.exponential(1, (64, 64))
    curves = {name: sparsification(error * rng.lognormal(0, 0.5, error.shape), error) for name in "ab"}
    opened(pictures.sparsification(curves, "does it know?"))


def test_of_two_versions_the_worse_one_has_the_brighter_error(field):
    """Reconstructions above, errors below on one scale: the planted error shows under its own version."""
    low, high, _ = field
    means = {"version 1": high + 40, "version 2": high + 4}
    page = opened(pictures.versions_panel(low, high, means, title="x"))
    height, width, _ = page.shape
    below = page[height * 5 // 8 : height * 7 // 8].mean(axis=2)
    worse, better = below[:, width * 3 // 8 : width // 2], below[:, width * 17 // 24 : width * 5 // 6]
    assert worse.mean() > better.mean() + 40


def test_image_panels_with_and_without_target(field):
    """Without a target, target and error are left out and the picture is narrower."""
    low, high, std = field
    full = opened(pictures.image_panel(low, high, high, std, title="x", interval=3 * std))
    short = opened(pictures.image_panel(low, high, None, std, title="x"))
    assert short.shape[1] < full.shape[1]


def test_colour_scales_belong_to_the_target(field):
    """A model twice as uncertain looks different in its uncertainty, and nowhere else."""
    low, high, std = field
    one = opened(pictures.image_panel(low, high, high, std, title="x"))
    two = opened(pictures.image_panel(low, high, high, 2 * std, title="x"))
    changed = np.flatnonzero(np.abs(one - two).max(axis=(0, 2)) > 0)
    assert changed.min() > one.shape[1] * 0.75


def test_the_detail_that_agrees_with_the_target_is_drawn(field):
    """Curves of input and reconstruction, dotted where the pair shares its noise; numbers beside them."""
    low, high, std = field
    result = Reconstruction(high, std, high - std, high + std, std, high)
    own = ring_curves(Shown(ImagePair("f0", Observation.of(low), high), result))
    assert own.as_json()["restored"][0] == pytest.approx(1)
    assert own.low[-20:].mean() < 0.5 < own.restored[-20:].mean()
    shared = ring_curves(Shown(ImagePair("f1", Observation.of(low), 2 * low + 5), result))
    assert shared.shared_noise and not own.shared_noise
    one = opened(pictures.ring_correlations({"f0": own}, "x"))
    assert np.abs(one - opened(pictures.ring_correlations({"f0": shared}, "x"))).max() > 0


def test_calibration_and_fields():
    """The plots of the gate's evidence, with and without a champion."""
    curve = CalibrationCurve((0.1, 0.5, 0.9), {"f0": (0.1, 0.4, 0.85), "f1": (0.2, 0.5, 0.95)})
    opened(pictures.calibration(curve, "calibration"))
    opened(pictures.per_field(scores(0.01), scores(0.02), "fields"))
    opened(pictures.per_field(scores(0.01), None, "fields"))


def test_kinds_of_pixels_are_drawn():
    """A kind that is covered worse moves its dots, and nothing needs all five kinds."""
    kind = {name: {"f0": 0.9, "f1": 0.8} for name in ("share", "coverage", "width", "mae", "crps", "ause")}
    even = replace(scores(0.01), strata={"dim": kind, "bright": kind})
    worse = replace(even, strata={"dim": kind, "bright": kind | {"coverage": {"f0": 0.5, "f1": 0.4}}})
    one, other = (opened(strata_picture.kinds_of_pixels(found.strata, 0.9, "x")) for found in (even, worse))
    assert one.shape != other.shape or np.abs(one - other).max() > 0


def test_no_shared_plotting_state():
    """pyplot, which keeps every figure and is not safe in threads, is never imported by the pictures."""
    for module in (drawing, pictures, schedule_pictures, strata_picture):
        assert "matplotlib.pyplot" not in vars(module)
        assert not any(name == "plt" for name in vars(module))
    assert sys.modules[drawing.__name__].Figure.__module__ == "matplotlib.figure"
