"""Fixtures that all parts share; what they are made of lies in specimens.py."""

from __future__ import annotations

import os
from pathlib import Path

# Threads that spin while they wait take the cores from the other process of tests; read when torch starts.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import pytest
import torch
from specimens import cells, make_checkpoint, make_dataset

from cvdm.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(scope="session", autouse=True)
def _two_threads():
    """Results are compared bit for bit, which holds for a fixed number of threads only."""
    torch.set_num_threads(2)


@pytest.fixture
def tiny_checkpoint() -> Checkpoint:
    """A small untrained model with everything that a trained one has."""
    return make_checkpoint()


@pytest.fixture
def tiny_checkpoint_dir(tmp_path: Path, tiny_checkpoint: Checkpoint) -> Path:
    """The same as a directory with its golden pair."""
    directory = tmp_path / "checkpoint"
    save_checkpoint(directory, tiny_checkpoint, cells(np.random.default_rng(7), 32))
    return directory


@pytest.fixture(scope="session")
def cells_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of twelve fields with all four splits; read only."""
    return make_dataset(tmp_path_factory.mktemp("data") / "test-cells")
