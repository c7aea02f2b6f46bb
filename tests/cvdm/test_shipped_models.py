"""The base models that travel with the repository; `dvc pull` brings them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvdm.checkpoint import load_checkpoint, verify_golden
from cvdm.dataset import dataset_digest, load_dataset
from cvdm.inspection.focus import measure_focus
from cvdm.optics import blur, simulate_widefield
from cvdm.patches import read_pair
from cvdm.posterior import reconstruct
from cvdm.validation import busiest_crop

ROOT = Path(__file__).parents[2]
TASKS = ("fmd-confocal-nuclei", "biosr-microtubules")


@pytest.mark.parametrize("task", TASKS)
def test_a_shipped_model_still_gives_what_it_gave(task):
    """Today's code replays the golden pair of each base model, and the model belongs to the shipped data."""
    directory = ROOT / "models" / task
    assert directory.is_dir(), "run `dvc pull` first"
    checkpoint = load_checkpoint(directory)
    verify_golden(directory, checkpoint)
    assert checkpoint.record.dataset_digest == dataset_digest(load_dataset(ROOT / "data" / task))


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


@pytest.mark.parametrize("task", TASKS)
def test_fewer_photons_widen_the_interval_and_a_defocus_is_told_by_focus(task):
    """A quarter of the light is wider; a blur of four pixels need not be, but the focus measure sees it."""
    dataset = load_dataset(ROOT / "data" / task)
    checkpoint = load_checkpoint(ROOT / "models" / task)
    target = busiest_crop(read_pair(dataset.split("test")[0]), 64).high
    widths = []
    for fewer in (1, 4):
        low = acquired_anew(dataset, target, fewer).astype(np.float32)
        found = reconstruct(checkpoint, low)
        widths.append(float((found.upper - found.lower).mean()))
    assert widths[1] > 1.05 * widths[0]
    scene = busiest_crop(read_pair(dataset.split("test")[0]), 256).high
    sharp, blurred = (
        measure_focus(acquired_anew(dataset, image, 1)).focus_db for image in (scene, blur(scene, 4))
    )
    assert blurred < sharp - 6
