"""Validation: each check catches a defect planted in a clean dataset on disk, and only that one."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from specimens import make_dataset

from cvdm.card import load_card
from cvdm.dataset import load_dataset
from cvdm.errors import ConfigError, DatasetError
from cvdm.images import write_tiff
from flows.validation import (
    ValidationError,
    ValidationPolicy,
    load_validation_policy,
    validate_dataset,
)
from flows.validation.checks import checks
from flows.validation.comparing import compare
from flows.validation.expectations import failures
from flows.validation.measuring import files_of, measure
from flows.validation.policy import Limits
from flows.validation.rules import Check, Within

ODD = Path(__file__).parents[1] / "data" / "odd"
POLICY = ValidationPolicy()


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Twelve fields of two captures that share their target."""
    return make_dataset(tmp_path_factory.mktemp("clean") / "test-cells", captures=2, size=96)


@pytest.fixture
def dataset(clean, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(clean, tmp_path / "test-cells"))


def pixels(path):
    return tifffile.imread(path)


def found(root, policy=POLICY):
    """(check, pair) of every refusal."""
    return {(finding.check, finding.name) for finding in validate_dataset(root, policy).rejected}


def measured(root):
    card = load_card(root)
    return card, measure(files_of(root, card), card)


def pair_of(root, split, index=0):
    return load_dataset(root).split(split)[index]


def test_a_clean_dataset_passes(clean):
    """Nothing fires but what the set is: targets that captures share, and a card that leaves things open."""
    report = validate_dataset(clean, POLICY)
    assert report.passed and {w.check for w in report.warnings} == {"metadata", "shared-target"}
    assert report.checks >= 60
    assert len(report.table) == 24 and sum(report.fields().values()) == 12
    assert report.as_json()["ok"] and report.as_json()["accepted"] == 24


def test_a_missing_target_and_a_missing_input_are_named(dataset):
    """Each is a row that fails as incomplete and for nothing else."""
    (dataset / "high" / "f03_c0.tif").unlink()
    (dataset / "low" / "f05_c1.tif").unlink()
    report = validate_dataset(dataset, POLICY)
    assert {(p.check, p.name, p.actual) for p in report.rejected} == {
        ("complete", "f03_c0", "no target"),
        ("complete", "f05_c1", "no input"),
    }
    assert len(report.table) == 24


@pytest.mark.parametrize("name", ["truncated", "corrupt", "rgb", "png"])
def test_an_unreadable_file_is_a_row_and_a_problem(dataset, name):
    """Damaged files and colour: reported with the reader's reason and nothing else."""
    odd = next(path for path in sorted(ODD.iterdir()) if name in path.name.lower())
    shutil.copy(odd, dataset / "low" / "f03_c0.tif")
    report = validate_dataset(dataset, POLICY)
    assert {(p.check, p.name) for p in report.rejected} == {("readable", "f03_c0")}
    assert report.rejected[0].remedy
    (row,) = (row for row in report.table if row.name == "f03_c0")
    assert row.low.present and not row.low.readable and row.low.digest is None


def test_a_stack_is_read_but_refused(dataset):
    """Axes are named by the file, and the refusal says what they are."""
    shutil.copy(ODD / "zstack_ZYX_uint8_imagej.tif", dataset / "low" / "f03_c0.tif")
    report = validate_dataset(dataset, POLICY)
    assert [(p.check, p.name) for p in report.rejected] == [("plane", "f03_c0")]
    assert "Z" in report.rejected[0].actual


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
    policy = replace(POLICY, saturated=Limits(warn=0.001, refuse=0.5))
    path = dataset / "low" / "f03_c0.tif"
    image = pixels(path)
    write_tiff(path, np.minimum(image, np.quantile(image, 0.99)).astype(np.uint8))
    report = validate_dataset(dataset, policy)
    assert report.passed and ("saturated", "f03_c0") in {(w.check, w.name) for w in report.warnings}
    strict = validate_dataset(dataset, replace(POLICY, saturated=Limits(warn=0.0005, refuse=0.001)))
    assert ("saturated", "f03_c0") in {(one.check, one.name) for one in strict.rejected}
    assert ("saturated", "f03_c0") not in {(one.check, one.name) for one in strict.warnings}


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
    assert report.passed and {w.name for w in report.warnings if w.check == "copy"} == {one.name, other.name}


def test_a_field_in_two_splits_is_caught(clean):
    """However it came about: the rule is checked on the table, not trusted."""
    card, found = measured(clean)
    rows = tuple(replace(row, split="test" if row.name == "f03_c0" else "train") for row in found.rows)
    moved = compare(replace(found, rows=rows), card, score=1)
    failed = {f.check.name: f.rows for f in failures(moved, card, checks(moved, card, POLICY))}
    assert {rows[i].name for i in failed["field-in-one-split"]} == {"f03_c0", "f03_c1"}


def test_an_empty_split_is_caught(dataset):
    """Without calibration fields nothing can be trained, and the message says which split is empty."""
    for pair in load_dataset(dataset).split("calibration"):
        pair.low.unlink()
        pair.high.unlink()
    report = validate_dataset(dataset, POLICY)
    assert [(p.check, p.name) for p in report.rejected] == [("splits", None)]
    assert "calibration" in report.rejected[0].expected


def test_a_name_without_a_field_is_caught(dataset):
    """A name that the card's pattern does not match is a problem of that pair."""
    for side in ("low", "high"):
        shutil.copy(dataset / side / "f03_c0.tif", dataset / side / "snapshot-7.tif")
    assert ("name", "snapshot-7") in found(dataset)


def test_missing_values_do_not_pass_a_bound(clean):
    """Great Expectations lets NaN pass a bound; its companion catches it, and an empty suite is refused."""
    card, found = measured(clean)
    blind = [replace(row, low=replace(row.low, saturated=None)) for row in found.rows]
    check = Check("x", "low_saturated", Within(most=0.02), "", lambda row: "", "")
    assert failures(blind, card, [check])[0].rows == tuple(range(len(blind)))
    assert not failures(blind, card, [replace(check, rule=Within(most=0.02, optional=True))])
    with pytest.raises(RuntimeError, match="0 results"):
        failures(blind, card, [])


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
    assert document["error"] == "ValidationError" and len(document["rejected"]) == 8


def test_the_report_is_plain_json(clean):
    """Rows, problems and warnings survive a strict JSON round trip."""
    document = validate_dataset(clean, POLICY).as_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["table"][0]["low"]["dtype"] == "uint8"


def test_thresholds_come_from_params(tmp_path):
    """Known keys override defaults level by level; unknown or impossible ones are refused."""
    params = tmp_path / "params.yaml"
    params.write_text("validation: {saturated: {refuse: 0.5}, hot_pixels: {warn: null}}\n")
    assert load_validation_policy(params) == ValidationPolicy(
        saturated=Limits(warn=0.002, refuse=0.5), hot_pixels=Limits(refuse=500.0)
    )
    for wrong, told in (
        ("{max_saturation: 0.5}", "max_saturation"),
        ("{saturated: {stop: 1}}", "stop"),
        ("{saturated: .nan}", "saturated"),
        ("{saturated: {warn: .nan}}", "finite"),
        ("{near_duplicate_score: 2}", "between 0 and 1"),
    ):
        params.write_text(f"validation: {wrong}\n")
        with pytest.raises(ConfigError, match=told):
            load_validation_policy(params)


def test_a_card_overrides_thresholds_of_its_task(dataset):
    """Its word counts for this task, the report says so, and a word that makes no sense is refused."""
    path = dataset / "low" / "f03_c0.tif"
    image = pixels(path)
    write_tiff(path, np.minimum(image, np.quantile(image, 0.95)).astype(np.uint8))
    assert ("saturated", "f03_c0") in found(dataset)
    card = (dataset / "card.yaml").read_text()
    (dataset / "card.yaml").write_text(card + "validation: {saturated: {warn: 0.3, refuse: 0.5}}\n")
    report = validate_dataset(dataset, POLICY)
    assert report.passed and report.overridden == ("saturated",)
    assert report.as_json()["policy"]["saturated"] == {"warn": 0.3, "refuse": 0.5}
    for wrong in ("{saturated: {warn: 0.6, refuse: 0.5}}", "{dust: {warn: 1}}"):
        (dataset / "card.yaml").write_text(card + f"validation: {wrong}\n")
        with pytest.raises(ConfigError):
            validate_dataset(dataset, POLICY)
    (dataset / "card.yaml").write_text(card + "validation: strict\n")
    with pytest.raises(DatasetError, match="threshold: value"):
        validate_dataset(dataset, POLICY)


def with_metadata(path, **stated):
    """Write the image again as OME-TIFF with what a microscope would state."""
    image = pixels(path)
    size = stated.pop("pixel_size_um", None)
    scale = {} if size is None else {"PhysicalSizeX": size, "PhysicalSizeY": size}
    channel = {key: value for key, value in (("Name", stated.get("channel")),) if value}
    tifffile.imwrite(path, image, ome=True, metadata={"axes": "YX", **scale, "Channel": channel})


def test_files_must_not_contradict_the_card(dataset):
    """Another pixel size or channel than the card's is refused; a file that says nothing is not."""
    with (dataset / "card.yaml").open("a") as card:
        card.write("channel: DAPI\n")
    for name, size, channel in (
        ("f03_c0", 0.1, "DAPI"),
        ("f04_c0", 0.101, "dapi"),
        ("f05_c0", 0.2, "DAPI"),
        ("f06_c0", 0.1, "GFP"),
    ):
        for side in ("low", "high"):
            path = dataset / side / f"{name}.tif"
            with_metadata(path, pixel_size_um=size, channel=channel)
    assert found(dataset) == {("pixel-size", "f05_c0"), ("channel", "f06_c0")}
    with_metadata(dataset / "high" / "f03_c0.tif", pixel_size_um=0.104, channel="DAPI")
    told = {
        one.check: one.actual for one in validate_dataset(dataset, POLICY).rejected if one.name == "f03_c0"
    }
    assert set(told) == {"pixel-size", "pixel-size-of-pair"} and "0.104" in told["pixel-size"]


def test_a_target_of_a_whole_factor_is_named(dataset):
    """A super-resolution pair is refused in words that say what it is."""
    path = dataset / "high" / "f03_c0.tif"
    write_tiff(path, np.kron(pixels(path), np.ones((2, 2), np.uint8)))
    (finding,) = validate_dataset(dataset, POLICY).rejected
    assert finding.check == "shape" and "a factor of 2" in finding.actual


def test_background_that_drifts_between_sessions_is_a_warning(dataset):
    """A session whose camera offset has changed is told from the others."""
    card = (
        (dataset / "card.yaml")
        .read_text()
        .replace("^(?P<field>f\\d+)_c\\d+$", "(?P<field>f\\d+)_(?P<session>c\\d)")
    )
    (dataset / "card.yaml").write_text(card)
    steady = {warning.check for warning in validate_dataset(dataset, POLICY).warnings}
    assert "background-drift" not in steady
    for path in (dataset / "low").glob("*_c1.tif"):
        write_tiff(path, np.clip(pixels(path).astype(int) + 25, 0, 255).astype(np.uint8))
    report = validate_dataset(dataset, POLICY)
    told = {warning.name for warning in report.warnings if warning.check == "background-drift"}
    assert told == {row.name for row in report.table}  # each of two sessions drifts against the other


def test_a_pair_of_one_image_twice_is_refused(dataset):
    """A target that is no better than its input teaches nothing."""
    shutil.copy(dataset / "low" / "f03_c0.tif", dataset / "high" / "f03_c0.tif")
    assert ("snr-gain-db", "f03_c0") in found(dataset)


@pytest.mark.parametrize(("size", "caught"), [(31, True), (32, False)])
def test_too_small_an_image_is_refused(dataset, size, caught):
    """Below 32 px hardly anything can be measured, so that nothing else would speak against it."""
    for side in ("low", "high"):
        path = dataset / side / "f03_c0.tif"
        write_tiff(path, pixels(path)[:size])
    assert (("size", "f03_c0") in found(dataset)) == caught


def test_a_pipe_and_a_dead_link_do_not_make_validation_wait(dataset, tmp_path):
    """What is no file is refused at once, by its name."""
    path = dataset / "low" / "f03_c0.tif"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere.tif")
    assert found(dataset) == {("readable", "f03_c0")}
    path.unlink()
    os.mkfifo(tmp_path / "pipe.tif")
    path.symlink_to(tmp_path / "pipe.tif")
    assert found(dataset) == {("readable", "f03_c0")}
    os.mkfifo(dataset / "low" / "pipe.tif")
    with pytest.raises(DatasetError, match=r"pipe\.tif"):
        validate_dataset(dataset, POLICY)


def test_present_fields_say_what_is_sharp(clean):
    """A batch that is larger than what is there, and out of focus as a whole, is told all the same."""
    card, measurements = measured(clean)
    new = {row.name for row in measurements.rows if row.field >= "f08"}
    blurred = tuple(
        replace(row, low=replace(row.low, focus_db=row.low.focus_db - 200)) if row.name in new else row
        for row in measurements.rows
    )
    rows = compare(replace(measurements, rows=blurred), card, score=1, new=new)
    assert all(row.low.focus_loss > 8 for row in rows if row.name in new and row.low.focus_loss is not None)
    assert any(row.low.focus_loss is not None for row in rows if row.name in new)


def test_every_odd_file_has_a_row(dataset):
    """Whatever a folder holds, each file is a row that is measured or says why not, and nothing stops."""
    odd = [path for path in sorted(ODD.iterdir()) if path.suffix in (".tif", ".tiff")]
    names = [row.name for row in validate_dataset(dataset, POLICY).table]
    for path, name in zip(odd, names, strict=False):
        (dataset / "low" / f"{name}.tif").unlink()
        shutil.copy(path, dataset / "low" / f"{name}.tif")
    report = validate_dataset(dataset, POLICY)
    rows = {row.name: row.low for row in report.table}
    refused = {(one.name, one.check) for one in report.rejected}
    assert len(odd) == 23
    for path, name in zip(odd, names, strict=False):
        row = rows[name]
        if row.readable:
            assert row.shape
            # each has another shape or type than its target, or shows something else
            assert any(refusal[0] == name for refusal in refused), path.name
        else:
            assert row.problem and row.remedy and (name, "readable") in refused, path.name
