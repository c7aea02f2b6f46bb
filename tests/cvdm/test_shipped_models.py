"""The base models that travel with the repository; `dvc pull` brings them."""

from pathlib import Path

import pytest

from cvdm.checkpoint import load_checkpoint, verify_golden
from cvdm.dataset import dataset_digest, load_dataset

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
