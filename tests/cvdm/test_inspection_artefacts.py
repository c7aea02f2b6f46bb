"""Artefacts planted in real images at strengths that do not matter, matter, and ruin; and none planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import shift

from cvdm.images import read_image
from cvdm.inspection.artefacts import hot_pixels, signal_share
from cvdm.inspection.dropped_lines import dropped_columns, dropped_rows
from cvdm.inspection.stagger import scan_stagger

DATA = Path(__file__).parents[2] / "data"
REAL = {
    "nuclei": "fmd-confocal-nuclei/high/fov05_cap00.tif",
    "nuclei, one frame": "fmd-confocal-nuclei/low/fov05_cap00.tif",
    "microtubules": "biosr-microtubules/high/cell011.tif",
    "microtubules, widefield": "biosr-microtubules/low/cell011.tif",
}
ODD = {
    "tiny": np.arange(31 * 17).reshape(31, 17) % 7,
    "constant": np.full((64, 48), 3.0),
    "zero": np.zeros((200, 100)),
    "one pixel": np.pad([[9.0]], 50),
    "checkerboard": np.indices((64, 64)).sum(axis=0) % 2,
    "one row": np.ones((1, 50)),
    "ramp": np.add.outer(np.zeros(80), np.arange(90.0)),
}


@pytest.fixture(params=REAL)
def clean(request):
    return read_image(DATA / REAL[request.param]).pixels


@pytest.fixture
def nuclei():
    return read_image(DATA / REAL["nuclei"]).pixels


@pytest.fixture
def frame():
    return read_image(DATA / REAL["nuclei, one frame"]).pixels


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_real_images_have_next_to_no_hot_pixels(clean):
    """Photon noise, structure and grey levels count for at most 20 pixels per megapixel."""
    assert hot_pixels(clean) <= 20


@pytest.mark.parametrize("count", [0, 20, 200])
def test_hot_pixels_are_counted(nuclei, rng, count):
    """As many single pixels are found as were planted, a sixth missed at most (some fall on structure)."""
    pixels = nuclei.copy()
    rows, columns = rng.integers(2, 510, (2, count))
    pixels[rows, columns] += 100
    found = hot_pixels(pixels) * pixels.size / 1e6
    assert 5 / 6 * count - 1 <= found <= count + 2


@pytest.mark.parametrize(("height", "share"), [(2, 0.1), (20, 0.9), (100, 0.9)])
def test_faint_outliers_do_not_count(nuclei, rng, height, share):
    """A hot pixel as high as the noise is none; one of 20 grey levels over dark background is."""
    dark = np.argwhere(nuclei < 8)
    rows, columns = dark[rng.choice(len(dark), 100, replace=False)].T
    pixels = nuclei.copy()
    pixels[rows, columns] += height
    found = hot_pixels(pixels) * pixels.size / 1e6
    assert found >= 80 if share > 0.5 else found <= 10


def test_points_imaged_by_an_objective_are_not_hot_pixels(rng):
    """Beads as sharp as sampling allows (sigma 1 px) give none, although they stand out of the noise."""
    y, x = np.mgrid[:200, :200]
    image = np.zeros((200, 200))
    for row, column in rng.uniform(10, 190, (40, 2)):
        image += 500 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2)
    assert hot_pixels(rng.poisson(image + 10).astype(np.float32)) == 0


def test_clean_images_have_no_dropped_lines(clean):
    """No line of a real image is constant, repeated or dark beside its neighbours."""
    assert dropped_rows(clean).total == dropped_columns(clean).total == 0


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("kind", ["constant", "duplicated", "dark"])
@pytest.mark.parametrize("measure", [dropped_rows, dropped_columns])
def test_dropped_lines_are_counted_by_kind(frame, rng, measure, kind, count):
    """Black, repeated and dark lines are counted exactly, and not as another kind."""
    # near a bright nucleus a dark line is plain; between nuclei there is nothing to lose
    pixels = frame if measure is dropped_rows else frame.T
    pixels = pixels.copy()
    bright = 1 + np.argsort(-pixels[1:-1].mean(axis=1))
    lines = []
    for line in bright:
        if len(lines) < count and all(abs(line - other) > 2 for other in lines):
            lines.append(line)
    for line in lines:
        if kind == "constant":
            pixels[line] = 0
        elif kind == "duplicated":
            pixels[line] = pixels[line - 1]
        else:
            pixels[line] = rng.integers(2, 5, pixels.shape[1])
    result = measure(pixels if measure is dropped_rows else pixels.T)
    assert getattr(result, kind) == result.total == len(lines)


def test_half_a_dropped_line_counts_for_nothing(frame):
    """A line that keeps half of its signal is not a dropped one."""
    frame[250] *= 0.5
    assert dropped_rows(frame).total == 0


def test_empty_background_is_no_dropped_line():
    """Rows that are zero because there is nothing to see there are not dropped."""
    image = np.zeros((200, 200), np.float32)
    image[80:120, 80:120] = np.random.default_rng(0).poisson(20, (40, 40))
    assert dropped_rows(image).total == dropped_columns(image).total == 0


def test_real_scans_show_no_stagger(clean):
    """Odd and even rows of real images lie within a twentieth of a pixel, or within three standard errors."""
    stagger = scan_stagger(clean)
    assert stagger is not None and abs(stagger.shift) <= max(0.05, 3 * stagger.error)


@pytest.mark.parametrize("planted", [0.02, 0.3, -2.5])
def test_stagger_is_measured_to_a_tenth_of_a_pixel(clean, planted):
    """A planted shift of odd rows changes the measure by that shift, also on single noisy frames."""
    before = scan_stagger(clean).shift
    clean[1::2] = shift(clean[1::2], (0, planted), order=3, mode="nearest")
    assert scan_stagger(clean).shift - before == pytest.approx(planted, abs=0.06)


def test_slanted_structure_is_no_stagger():
    """Lines at 45 degrees, whose rows all differ by a pixel, are not taken for stagger."""
    y, x = np.mgrid[:128, :128]
    assert abs(scan_stagger(np.sin((x + y) / 3).astype(np.float32)).shift) <= 0.01


def test_noise_alone_tells_no_stagger(rng):
    """Without structure there is no statement."""
    assert scan_stagger(rng.poisson(20, (256, 256)).astype(np.float32)) is None


def test_real_fields_are_not_empty(clean):
    """Every real field shows signal on at least a tenth of its area."""
    assert 0.1 < signal_share(clean) < 0.9


@pytest.mark.parametrize("vignetting", [0.0, 0.1, 0.4])
def test_an_empty_field_is_empty_under_any_smooth_light(rng, vignetting):
    """Photon noise under a vignetted lamp is no signal."""
    y, x = np.mgrid[-1:1:300j, -1:1:300j]
    light = 50 * (1 - vignetting * (x**2 + y**2) / 2)
    assert signal_share(rng.poisson(light).astype(np.float32)) < 0.001


@pytest.mark.parametrize("side", [4, 40, 120])
def test_signal_share_is_the_share_of_what_was_planted(rng, side):
    """A bright square in an empty, noisy frame counts with its area."""
    empty = rng.poisson(20, (400, 400)).astype(np.float32)
    empty[100 : 100 + side, 200 : 200 + side] += 40
    assert signal_share(empty) == pytest.approx(side**2 / 400**2, rel=0.1, abs=2e-5)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("measure", [hot_pixels, dropped_rows, dropped_columns, scan_stagger, signal_share])
def test_odd_images_raise_nothing(name, measure):
    """Constant, tiny and artificial images give a value or None, never an error or a warning."""
    with np.errstate(all="raise"):
        measure(ODD[name].astype(np.float32))


def test_images_that_show_nothing_get_no_statement():
    """A constant image has no hot pixels to speak of, no stagger, no dropped lines and no signal."""
    constant = ODD["constant"].astype(np.float32)
    assert hot_pixels(constant) is None and scan_stagger(constant) is None
    assert dropped_rows(constant).total == 0 and signal_share(constant) == 0
