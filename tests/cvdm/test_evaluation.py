"""Evaluation: fields are the unit, baselines stand beside, the JSON is as documented."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from specimens import make_checkpoint, make_dataset

from cvdm.dataset import load_dataset
from cvdm.errors import CheckpointError, DatasetError
from cvdm.evaluation import summary_table
from cvdm.measuring import evaluate
from cvdm.optics import ForwardModel
from cvdm.posterior import conclude, reconstruct


@pytest.fixture(scope="module")
def result(cells_dataset):
    return evaluate(make_checkpoint(), load_dataset(cells_dataset), "test")


def test_every_metric_has_every_test_field(result, cells_dataset):
    """All documented metrics, one value per held-out field, all finite."""
    fields = set(load_dataset(cells_dataset).fields("test"))
    point = {"psnr", "ssim", "nrmse", "mae"}
    own = {"crps", "coverage", "width", "ause", "std_rank", "map_rank", "frc_px"}
    own |= {"crps_drawn", "stretch", "unstretched_coverage"}
    assert set(result.metrics) == point | {f"{m}_fit" for m in point} | own
    for values in result.metrics.values():
        assert set(values) == fields and np.isfinite(list(values.values())).all()


def test_baselines_stand_beside_the_candidate(result):
    """Input, best blur and regression mean, alone and with one spread, are scored on the same fields;
    Richardson-Lucy needs optics.
    """
    assert set(result.baselines) == {"input", "best-blur", "regression-mean", "constant-interval"}
    assert result.baselines["best-blur"]["psnr_fit"].keys() == result.metrics["psnr_fit"].keys()
    blur, low = (np.mean(list(result.baselines[b]["psnr_fit"].values())) for b in ("best-blur", "input"))
    assert blur > low


def test_the_json_document_is_as_documented(result):
    """Keys and shapes that a program relies on."""
    document = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert {
        "task",
        "split",
        "metrics",
        "baselines",
        "coverage",
        "steps",
        "samples",
        "seconds_per_megapixel",
    } <= set(document)
    crps = document["metrics"]["crps"]
    assert crps["mean"] == pytest.approx(np.mean(list(crps["per_field"].values())))
    assert isinstance(document["baselines"]["input"]["psnr"]["mean"], float)
    assert document["coverage"] == document["metrics"]["coverage"]["mean"]


def test_the_table_names_everyone(result):
    """People see baselines and model in one table."""
    table = summary_table(result)
    assert all(name in table for name in ("input", "best-blur", "regression-mean", "CVDM"))


def test_a_model_of_another_task_is_refused(cells_dataset):
    """Scores of the wrong model would look like scores."""
    with pytest.raises(CheckpointError, match="one of other-cells"):
        evaluate(make_checkpoint(task="other-cells"), load_dataset(cells_dataset))


def test_a_target_of_another_shape_is_named(tmp_path):
    """Planted: one test target lacks ten rows; the pair's name and both shapes are in the message."""
    dataset = load_dataset(make_dataset(tmp_path / "data"))
    pair = dataset.split("test")[0]
    tifffile.imwrite(pair.high, tifffile.imread(pair.high)[:-10])
    with pytest.raises(DatasetError, match=f"{pair.name}.*96 x 96 and 86 x 96"):
        evaluate(make_checkpoint(), dataset)


def test_known_baselines_are_not_measured_again(cells_dataset, result):
    """Without them the model's own scores are the same."""
    again = evaluate(make_checkpoint(), load_dataset(cells_dataset), with_baselines=False)
    assert set(again.baselines) == {"regression-mean"} and again.metrics == result.metrics


def test_the_residual_is_measured_where_the_card_states_the_optics(cells_dataset, result):
    """Without a forward model in the card there is none; with one, it is there for every field."""
    dataset = load_dataset(cells_dataset)
    optics = ForwardModel(1.0, 200, 200, 1.0, 0, 0)
    known = replace(dataset, card=replace(dataset.card, forward_model=optics))
    measured = evaluate(make_checkpoint(), known).metrics
    assert "residual" not in result.metrics
    assert set(measured["residual"]) == set(dataset.fields("test"))
    assert measured["crps"] == result.metrics["crps"]


def test_the_resolution_is_left_out_where_input_and_target_share_noise(tmp_path):
    """Planted: of one test field, input and target are the same image; the others keep their value."""
    dataset = load_dataset(make_dataset(tmp_path / "data"))
    pair, *others = dataset.split("test")
    tifffile.imwrite(pair.high, tifffile.imread(pair.low))
    measured = evaluate(make_checkpoint(), dataset).metrics["frc_px"]
    assert set(measured) == {other.field for other in others}


def test_the_schedule_of_the_model_is_part_of_its_evaluation(result):
    """Every pixel of every test image, at its worst; the document tells it, too."""
    assert result.schedule.finite and result.schedule.falling
    assert (result.schedule.clean, result.schedule.noise) == pytest.approx((7, -7), abs=1e-3)
    assert result.as_json()["schedule"]["falling"] is True


def test_a_measured_image_need_not_be_restored_again(cells_dataset):
    """The draws that are handed out come to the reconstruction that `reconstruct` gives, for every image."""
    checkpoint, dataset, seen = make_checkpoint(), load_dataset(cells_dataset), []
    evaluate(checkpoint, dataset, on_image=lambda *of_image: seen.append(of_image), with_baselines=False)
    assert len(seen) == len(dataset.split("test"))
    for image, view, draws in seen:
        ours, again = conclude(checkpoint, view, draws), reconstruct(checkpoint, image.low)
        for name, values in vars(again).items():
            np.testing.assert_array_equal(getattr(ours, name), values, err_msg=name)
