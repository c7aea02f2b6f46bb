"""Validation: each check catches a defect planted in a clean dataset on disk, and only that one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from specimens import make_dataset

from cvdm.dataset import load_dataset
from cvdm.errors import ConfigError, DatasetError
from cvdm.images import write_tiff
from flows.checks import Check, ValidationPolicy, Within, checks
from flows.expectations import failures
from flows.features import compare, measure
from flows.validate import ValidationError, load_validation_policy, validate_dataset

ODD = Path(__file__).parents[1] / "data" / "odd"
POLICY = ValidationPolicy()


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Twelve fields of two captures that share their target, which has grain instead of flat tops."""
    root = make_dataset(tmp_path_factory.mktemp("clean") / "test-cells", captures=2, size=64)
    rng = np.random.default_rng(0)
    for pair in load_dataset(root).pairs[::2]:
        grain = rng.normal(0, 6, (64, 64))
        for capture in "01":
            path = pair.high.with_name(f"{pair.field}_c{capture}.tif")
            write_tiff(path, np.clip(pixels(path) + grain, 0, 255).round().astype(np.uint8))
    return root


@pytest.fixture
def dataset(clean, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(clean, tmp_path / "test-cells"))


def pixels(path):
    return tifffile.imread(path)


def found(root, policy=POLICY):
    """(check, pair) of every problem."""
    return {(problem.check, problem.pair) for problem in validate_dataset(root, policy).problems}


def pair_of(root, split, index=0):
    return load_dataset(root).split(split)[index]


def test_a_clean_dataset_passes_without_a_word(clean):
    """Nothing fires, captures that share their target included, and every check was made."""
    report = validate_dataset(clean, POLICY)
    assert report.passed and not report.warnings
    assert report.checks >= 25
    assert len(report.table) == 24 and sum(report.fields().values()) == 12
    assert report.as_json()["ok"] and report.as_json()["accepted"] == 24


def test_a_missing_target_and_a_missing_input_are_named(dataset):
    """Each is a row that fails as incomplete and for nothing else."""
    (dataset / "high" / "f03_c0.tif").unlink()
    (dataset / "low" / "f05_c1.tif").unlink()
    report = validate_dataset(dataset, POLICY)
    assert {(p.check, p.pair, p.actual) for p in report.problems} == {
        ("complete", "f03_c0", "no target"),
        ("complete", "f05_c1", "no input"),
    }
    assert len(report.table) == 24


@pytest.mark.parametrize("name", ["truncated", "corrupt", "rgb", "png", "stack"])
def test_an_unreadable_file_is_a_row_and_a_problem(dataset, name):
    """Damaged files, colour and stacks: reported with the reader's reason and nothing else."""
    odd = next(path for path in sorted(ODD.iterdir()) if name in path.name.lower())
    shutil.copy(odd, dataset / "low" / "f03_c0.tif")
    report = validate_dataset(dataset, POLICY)
    assert {(p.check, p.pair) for p in report.problems} == {("readable", "f03_c0")}
    assert report.problems[0].remedy
    (row,) = (row for row in report.table if row.name == "f03_c0")
    assert row.low.present and not row.low.readable and row.low.shape is None


def test_nan_is_told_from_an_unreadable_file(dataset):
    """One NaN pixel fails as not finite."""
    path = dataset / "low" / "f03_c0.tif"
    broken = pixels(path).astype(np.float32)
    broken[5, 5] = np.nan
    write_tiff(path, broken)
    assert found(dataset) == {("finite", "f03_c0")}


def test_another_shape_is_caught(dataset):
    """Input and target of different size fail."""
    path = dataset / "high" / "f03_c0.tif"
    write_tiff(path, pixels(path)[:-1])
    assert ("shape", "f03_c0") in found(dataset)


def test_another_bit_depth_is_caught(dataset):
    """One 16-bit image among 8-bit ones fails."""
    path = dataset / "low" / "f03_c0.tif"
    write_tiff(path, pixels(path).astype(np.uint16) * 257)
    assert found(dataset) == {("dtype", "f03_c0")}


def test_a_constant_image_is_caught(dataset):
    """A closed shutter fails as constant."""
    path = dataset / "low" / "f03_c0.tif"
    write_tiff(path, np.full_like(pixels(path), 7))
    assert ("constant", "f03_c0") in found(dataset)


@pytest.mark.parametrize(("share", "caught"), [(0.015, False), (0.025, True), (0.5, True)])
def test_saturation_is_caught_above_its_threshold(dataset, share, caught):
    """Clipped highlights pass below the threshold and fail above, at any grey value."""
    path = dataset / "low" / "f03_c0.tif"
    image = pixels(path)
    ceiling = np.quantile(image, 1 - share)
    write_tiff(path, np.minimum(image, ceiling).astype(image.dtype))
    assert (("saturated", "f03_c0") in found(dataset)) == caught


@pytest.mark.parametrize(("share", "caught"), [(0.8, False), (0.97, True)])
def test_clipped_blacks_are_caught_above_their_threshold(dataset, share, caught):
    """Pixels at zero pass below the threshold and fail above."""
    path = dataset / "low" / "f03_c0.tif"
    image = pixels(path).astype(int)
    dark = np.clip(image - np.quantile(image, share), 0, None).astype(np.uint8)
    write_tiff(path, dark)
    assert (("black", "f03_c0") in found(dataset)) == caught


def test_a_little_saturation_is_a_warning(dataset):
    """Between the two thresholds a dataset passes with a warning; above the upper one it fails."""
    policy = replace(POLICY, warn_saturated=0.001, max_saturated=0.5)
    path = dataset / "low" / "f03_c0.tif"
    image = pixels(path)
    write_tiff(path, np.minimum(image, np.quantile(image, 0.99)).astype(np.uint8))
    report = validate_dataset(dataset, policy)
    assert report.passed and {w.check for w in report.warnings} == {"saturated"}
    strict = validate_dataset(dataset, replace(policy, max_saturated=0.001))
    assert not strict.passed and not strict.warnings


@pytest.mark.parametrize("side", ["low", "high"])
def test_the_same_image_in_two_splits_is_a_leak(dataset, side):
    """A train image copied into the test split is caught on both ends, whatever its file looks like."""
    one, other = pair_of(dataset, "train"), pair_of(dataset, "test")
    tifffile.imwrite(getattr(other, side), pixels(getattr(one, side)))  # other bytes, same pixels
    leaks = {pair for check, pair in found(dataset) if check == "leak"}
    assert {one.name, other.name} <= leaks


def test_a_copy_inside_a_split_is_a_warning(dataset):
    """The same input twice in one split teaches nothing new, but leaks nothing."""
    one, other = pair_of(dataset, "train", 0), pair_of(dataset, "train", 1)
    assert one.field == other.field
    shutil.copy(one.low, other.low)
    report = validate_dataset(dataset, POLICY)
    assert report.passed and {w.pair for w in report.warnings if w.check == "copy"} == {one.name, other.name}


def test_a_field_in_two_splits_is_caught(clean):
    """However it came about: the rule is checked on the table, not trusted."""
    _, rows = measure(clean)
    moved = compare([replace(row, split="test" if row.name == "f03_c0" else "train") for row in rows])
    failed = {f.check.name: f.rows for f in failures(moved, checks(moved, POLICY))}
    assert {rows[i].name for i in failed["field-in-one-split"]} == {"f03_c0", "f03_c1"}


def test_an_empty_split_is_caught(dataset):
    """Without calibration fields nothing can be trained, and the message says which split is empty."""
    for pair in load_dataset(dataset).split("calibration"):
        pair.low.unlink()
        pair.high.unlink()
    report = validate_dataset(dataset, POLICY)
    assert [(p.check, p.pair) for p in report.problems] == [("splits", None)]
    assert "calibration" in report.problems[0].expected


def test_a_name_without_a_field_is_caught(dataset):
    """A name that the card's pattern does not match is a problem of that pair."""
    for side in ("low", "high"):
        shutil.copy(dataset / side / "f03_c0.tif", dataset / side / "snapshot-7.tif")
    assert ("name", "snapshot-7") in found(dataset)


def test_missing_values_do_not_pass_a_bound(clean):
    """Great Expectations lets NaN pass a bound; its companion catches it, and an empty suite is refused."""
    _, rows = measure(clean)
    blind = [replace(row, low=replace(row.low, at_highest=None)) for row in rows]
    check = Check("x", "low_at_highest", Within(most=0.02), "", lambda row, side: "", "")
    assert failures(blind, [check])[0].rows == tuple(range(len(rows)))
    with pytest.raises(RuntimeError, match="0 results"):
        failures(rows, [])


def test_nothing_to_judge_is_an_error_of_its_own(tmp_path, dataset):
    """No folder, no images, and files that are no TIFF are named without a table."""
    with pytest.raises(DatasetError, match=r"card\.yaml"):
        validate_dataset(tmp_path / "nowhere", POLICY)
    (dataset / "low" / "notes.docx").write_text("x")
    with pytest.raises(DatasetError, match=r"notes\.docx"):
        validate_dataset(dataset, POLICY)


def test_a_failure_reads_like_a_letter(dataset):
    """The message counts, lists the first problems with remedies, and programs get all of them."""
    for pair in load_dataset(dataset).pairs[:8]:
        pair.high.unlink()
    with pytest.raises(ValidationError) as raised:
        validate_dataset(dataset, POLICY).raise_if_failed()
    text = str(raised.value)
    assert "8 problems in 24 pairs" in text and "and 3 more" in text
    assert "f00_c0: expected an input in low/ and a target in high/ of the same name; got no target." in text
    document = json.loads(json.dumps(raised.value.as_dict()))
    assert document["error"] == "ValidationError" and len(document["problems"]) == 8


def test_the_report_is_plain_json(clean):
    """Rows, problems and warnings survive a strict JSON round trip."""
    document = validate_dataset(clean, POLICY).as_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["table"][0]["low"]["dtype"] == "uint8"


def test_thresholds_come_from_params(tmp_path):
    """Known keys override defaults; unknown or impossible ones are refused."""
    params = tmp_path / "params.yaml"
    params.write_text("validation: {max_saturated: 0.5}\n")
    assert load_validation_policy(params) == ValidationPolicy(max_saturated=0.5)
    params.write_text("validation: {max_saturation: 0.5}\n")
    with pytest.raises(ConfigError, match="max_saturation"):
        load_validation_policy(params)
    params.write_text("validation: {max_saturated: 2}\n")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        load_validation_policy(params)
