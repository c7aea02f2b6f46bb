"""The base models that travel with the repository; `dvc pull` brings them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvdm.checkpoint import load_checkpoint, verify_golden
from cvdm.dataset import load_dataset
from cvdm.inspection.focus import measure_focus
from cvdm.metrics import coverage
from cvdm.observation import Observation
from cvdm.optics import blur, simulate_widefield
from cvdm.patches import read_pair
from cvdm.posterior import reconstruct
from cvdm.suitability import doubts_of_image
from cvdm.validation import busiest_crop

ROOT = Path(__file__).parents[2]
TASKS = ("fmd-confocal-nuclei", "biosr-microtubules")
EDGE = 256


@pytest.mark.parametrize("task", TASKS)
def test_a_shipped_model_still_gives_what_it_gave(task):
    """Today's code replays the golden pair of each base model, and the model belongs to the shipped data."""
    directory = ROOT / "models" / task
    assert directory.is_dir(), "run `dvc pull` first"
    checkpoint = load_checkpoint(directory)
    verify_golden(directory, checkpoint)
    assert checkpoint.record.dataset_digest == load_dataset(ROOT / "data" / task).digest


@pytest.mark.parametrize("task", TASKS)
def test_no_shipped_split_is_starved_or_overlaps(task):
    """Every split holds a field, and no field lies in two."""
    dataset = load_dataset(ROOT / "data" / task)
    dataset.require_splits()
    fields = [
        field for split in ("train", "validation", "calibration", "test") for field in dataset.fields(split)
    ]
    assert len(fields) == len(set(fields))


def acquired_anew(dataset, target, fewer):
    """An input of a target with fewer photons: by the card's optics, or with a confocal frame's noise."""
    optics = dataset.card.forward_model
    if optics is not None:
        return simulate_widefield(target, replace(optics, photons=optics.photons / fewer), 0)
    gain = 3.5 * fewer  # grey levels per photon of these pairs, measured with cvdm.probing
    return gain * np.random.default_rng(0).poisson(target / gain)


def strange_inputs(task, dataset, checkpoint):
    """Name, input and truth of images unlike the training: a quarter of the light, out of focus (confocal
    only: widefield blur and noise hide that), and the other modality."""
    target = busiest_crop(read_pair(dataset.split("test")[0]), EDGE).high
    yield "photons / 4", acquired_anew(dataset, target, 4).astype(np.float32), target
    if dataset.card.forward_model is None:
        yield "defocus of 6 px", acquired_anew(dataset, blur(target, 6), 1).astype(np.float32), target
    (other,) = (name for name in TASKS if name != task)
    image = busiest_crop(read_pair(load_dataset(ROOT / "data" / other).split("test")[0]), EDGE)
    low, high = np.percentile(image.low, (1, 99.8))
    known = checkpoint.normalisation
    scale = (known.high - known.low) / (high - low)
    matched = [((side - low) * scale + known.low).astype(np.float32) for side in (image.low, image.high)]
    yield f"{other}, brought to the model's intensities", *matched


@pytest.mark.parametrize("task", TASKS)
def test_unfamiliar_images_get_a_wider_interval_that_holds(task):
    """Where that of a familiar one would leave out a quarter of the pixels or more; and they are doubted."""
    dataset, checkpoint = load_dataset(ROOT / "data" / task), load_checkpoint(ROOT / "models" / task)
    familiar = busiest_crop(read_pair(dataset.split("test")[0]), EDGE)
    assert checkpoint.novelty(familiar.observation) < 1.05
    for name, low, truth in strange_inputs(task, dataset, checkpoint):
        seen = Observation.of(low)
        found = reconstruct(checkpoint, seen)
        plain = reconstruct(replace(checkpoint, familiar=None), seen)
        assert coverage(plain.lower, plain.upper, truth) < 0.8, name
        assert coverage(found.lower, found.upper, truth) > 0.8, name
        assert any("times as far" in doubt.actual for doubt in doubts_of_image(checkpoint, seen, None, "a"))


@pytest.mark.parametrize("task", TASKS)
def test_a_defocus_is_told_by_focus_where_noise_hides_it_from_novelty(task):
    """Of four pixels: the focus measure that the watch on drift uses falls by 6 dB and more."""
    dataset = load_dataset(ROOT / "data" / task)
    scene = busiest_crop(read_pair(dataset.split("test")[0]), EDGE).high
    sharp, blurred = (
        measure_focus(acquired_anew(dataset, image, 1)).focus_db for image in (scene, blur(scene, 4))
    )
    assert blurred < sharp - 6
