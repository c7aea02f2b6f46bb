"""Fixtures that all parts share; what they are made of lies in specimens.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Threads that spin while they wait take the cores from the other process of tests; read when torch starts.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from typing import Any

import numpy as np
import pytest
import torch
from specimens import cells, make_checkpoint, make_dataset

from cvdm.checkpoint import Checkpoint, save_checkpoint


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The science last: of many short files, the end of a run leaves no process idle beside a long one."""
    science = Path(__file__).parent / "cvdm"
    items.sort(key=lambda item: science in item.path.parents)


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser, where a Chromium is installed; a module's own, as its loop stays in the thread."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine; `apt-get install chromium`")
    offline = (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    )
    with sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox", *offline])
        yield started
        started.close()
