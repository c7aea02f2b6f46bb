"""Near-duplicates among real fields of view, changed as files get changed on the way into a dataset."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from changed_fields import changed, synthetic_fingerprints, twins

from cvdm.images import read_image
from cvdm.inspection.duplicate_search import groups, near_duplicates
from cvdm.inspection.fingerprints import Fingerprint, fingerprint

DATA = Path(__file__).parents[2] / "data"
FMD, BIOSR = DATA / "fmd-confocal-nuclei", DATA / "biosr-microtubules"
CERTAIN = 0.42  # score above which the tests call a pair a duplicate


@pytest.fixture(scope="module")
def fields():
    """One target of each real field, by name."""
    nuclei = {path.name[:5]: path for path in sorted((FMD / "high").glob("*_cap00.tif"))}
    cells = {path.stem: path for path in sorted((BIOSR / "high").glob("*.tif"))}
    return {name: read_image(path).pixels for name, path in (nuclei | cells).items()}


@pytest.fixture(scope="module")
def overlapping():
    return [set(names) for names in yaml.safe_load((FMD / "card.yaml").read_text())["overlapping"]]


def same_place(one, other, overlapping):
    names = {one.partition("#")[0], other.partition("#")[0]}
    return len(names) == 1 or any(names <= group for group in overlapping)


def test_changed_fields_are_found_and_different_fields_are_not(fields, overlapping):
    """Cropped to 60 %, turned, mirrored, rescaled and noisy copies: recall >= 0.95 at precision >= 0.99."""
    rng = np.random.default_rng(0)
    images = dict(fields)
    for name, pixels in fields.items():
        for copy, (area, noise) in enumerate(((0.6, 0.05), (0.6, 0.1), (0.8, 0.15))):
            images[f"{name}#{copy}"] = changed(pixels, rng, area=area, noise=noise)
    found = near_duplicates({name: fingerprint(pixels) for name, pixels in images.items()})
    certain = {(pair.first, pair.second) for pair in found if pair.score >= CERTAIN}
    copies = {(name.partition("#")[0], name) for name in images if "#" in name}
    right = sum(same_place(*pair, overlapping) for pair in certain)
    assert len(copies & certain) >= 0.95 * len(copies)
    assert right >= 0.99 * len(certain)


def test_fields_that_overlap_on_the_slide_are_grouped_and_no_others(fields, overlapping):
    """The targets as they are fall into the groups that the dataset's card lists, with the shared area."""
    found = near_duplicates({name: fingerprint(pixels) for name, pixels in fields.items()})
    certain = [pair for pair in found if pair.score >= CERTAIN]
    assert [set(group) for group in groups(certain)] == overlapping
    shared = {(pair.first, pair.second): pair.overlap for pair in certain}
    assert shared["fov01", "fov02"] == pytest.approx(0.61, abs=0.01)
    assert shared["fov16", "fov18"] == pytest.approx(0.35, abs=0.01)
    assert not any(pair.mirrored for pair in certain)


def test_three_keypoints_that_agree_by_chance_make_no_duplicate(fields, overlapping):
    """Among the nuclei alone, whose keypoints resemble each other, only true neighbours are certain."""
    nuclei = {name: fingerprint(pixels) for name, pixels in fields.items() if name.startswith("fov")}
    found = near_duplicates(nuclei)
    certain = [pair for pair in found if pair.score >= CERTAIN]
    assert len(certain) >= 5
    assert all(same_place(pair.first, pair.second, overlapping) for pair in certain)


@pytest.mark.parametrize(("area", "found"), [(0.6, True), (0.3, True), (0.002, False)])
def test_the_smaller_the_crop_the_lower_the_score(fields, area, found):
    """A crop is found as long as it shows a few structures; one of a few dozen pixels is not."""
    crop = changed(fields["cell001"], np.random.default_rng(1), area=area, noise=0.02)
    pairs = near_duplicates({"whole": fingerprint(fields["cell001"]), "part": fingerprint(crop)})
    assert any(pair.score > 0.7 and pair.overlap > 0.95 for pair in pairs) == found


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_noise_lowers_the_score_gradually(fields, noise):
    """Noise of 30 % of the range leaves a clear duplicate, and a clearly lower score than none."""
    copy = changed(fields["fov05"], np.random.default_rng(2), area=0.7, noise=noise)
    (pair,) = near_duplicates({"a": fingerprint(fields["fov05"]), "b": fingerprint(copy)})
    lowest, highest = {0.0: (0.92, 1.0), 0.1: (0.8, 0.97), 0.3: (0.4, 0.93)}[noise]
    assert lowest <= pair.score <= highest


def test_two_noisy_captures_of_one_field_are_duplicates_and_of_two_fields_are_not():
    """Single confocal frames, whose noise is the microscope's own, are recognised as well."""
    names = [f"fov{number:02}_cap{capture}" for number in (3, 5, 8, 10, 11) for capture in ("00", "40")]
    low = {name: fingerprint(read_image(FMD / "low" / f"{name}.tif").pixels) for name in names}
    certain = {(pair.first, pair.second) for pair in near_duplicates(low) if pair.score >= CERTAIN}
    assert certain == set(zip(names[::2], names[1::2], strict=True))


def test_each_of_the_8_symmetries_is_recognised_and_mirrors_are_told(fields):
    """Turned and mirrored copies share all of the field, and `mirrored` says which kind they are."""
    pixels = fields["fov04"][:400, :360]
    for turns in range(4):
        for mirrored in (False, True):
            copy = np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
            (pair,) = near_duplicates({"a": fingerprint(pixels), "b": fingerprint(copy)})
            assert pair.score > 0.9 and pair.overlap > 0.98 and pair.mirrored == mirrored


def test_equal_images_are_linked_however_many(fields):
    """Sixty files with one target form one group of sixty, at the cost of sixty pairs, not of 1770."""
    same, other = fingerprint(fields["fov03"]), fingerprint(fields["fov05"])
    pool = {f"capture{number:02}": same for number in range(60)} | {"other": other}
    certain = [pair for pair in near_duplicates(pool) if pair.score >= CERTAIN]
    assert len(certain) == 59
    assert groups(certain) == [tuple(f"capture{number:02}" for number in range(60))]


def test_a_shared_pattern_of_the_camera_makes_no_duplicates(fields):
    """Three bright dust grains at the same places of different fields match, but their thumbnails do not."""
    dirty = {}
    for name in ("fov03", "fov05", "fov08", "fov10", "fov11"):
        image = fields[name].copy()
        for row, column in ((100, 120), (300, 250), (200, 400)):
            image[row : row + 6, column : column + 6] += 100
        dirty[name] = fingerprint(image)
    assert all(pair.score < CERTAIN for pair in near_duplicates(dirty))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((31, 17)),
        np.full((300, 200), 1000.1),
        np.eye(64) * 5,
        np.pad([[9.0]], 150),
        np.indices((200, 100)).sum(axis=0) % 2,
        np.ones((2, 3)),
    ],
    ids=["tiny", "constant", "diagonal", "one pixel", "checkerboard", "two rows"],
)
def test_odd_images_have_a_fingerprint_and_no_duplicates_but_their_own(pixels, fields):
    """Images without structure raise nothing and resemble no real field."""
    odd = fingerprint(pixels.astype(np.float32))
    pairs = near_duplicates({"odd": odd, "again": odd, "real": fingerprint(fields["fov05"])})
    assert all("real" not in (pair.first, pair.second) or pair.score < CERTAIN for pair in pairs)


def test_a_fingerprint_survives_a_file_and_repeats(fields, tmp_path):
    """numpy's archive stores it whole; the same pixels give the same arrays; it is a tenth of the image."""
    one = fingerprint(fields["fov05"])
    np.savez(tmp_path / "one.npz", **vars(one))
    with np.load(tmp_path / "one.npz") as stored:
        again = Fingerprint(**stored)
    for key, value in vars(fingerprint(fields["fov05"])).items():
        np.testing.assert_array_equal(getattr(again, key), value)
    assert sum(value.nbytes for value in vars(one).values()) < 0.1 * fields["fov05"].size


def test_nothing_to_compare_gives_nothing():
    """No fingerprints, one, or none with keypoints: no pairs, no groups."""
    empty = fingerprint(np.zeros((31, 17), np.float32))
    assert (
        near_duplicates({})
        == near_duplicates({"a": empty})
        == near_duplicates({"a": empty, "b": empty})
        == []
    )
    assert groups([]) == []


def test_time_grows_in_proportion_to_the_number_of_images(fields):
    """Eight times as many fingerprints take far less than 64 times as long, and all twins are found."""
    real = [fingerprint(pixels) for pixels in list(fields.values())[::3]]
    rng = np.random.default_rng(3)
    seconds = []
    for count in (100, 800):
        pool = synthetic_fingerprints(count, real, rng)
        started = time.process_time()
        found = near_duplicates(pool)
        seconds.append(time.process_time() - started)
        certain = {(pair.first, pair.second) for pair in found if pair.score >= CERTAIN}
        assert certain == twins(count)
    assert seconds[1] < 25 * seconds[0]
