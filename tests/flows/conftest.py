"""Fixtures of the lifecycle's tests: a project folder of their own with a real SQLite MLflow store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from specimens import TINY_RECIPE

from flows.settings import PROJECT, Settings

# Prefect reads this when it is imported; else it writes to a closed terminal when the tests are over.
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"

PARAMS = yaml.safe_dump(
    {
        # One tile holds a whole test image, which is what takes least time.
        "presets": {"tiny": replace(TINY_RECIPE, sampling=replace(TINY_RECIPE.sampling, tile=128)).as_dict()},
        "gate": {"min_fields": 2},
        "retention": {},
        "validation": {},
    }
)


@pytest.fixture(scope="session", autouse=True)
def _quiet_tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tools see the same environment as under `cvdm`, with their state in a temporary folder."""
    settings = Settings(home=tmp_path_factory.mktemp("tools"))
    settings.mlruns_dir.mkdir()  # Prefect makes its home below it
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.tool_environment().items():
            patch.setenv(name, value)
        for name in [name for name in os.environ if name.startswith("CVDM_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory, _quiet_tools: None) -> Path:
    """A migrated MLflow database without content; migrating takes seconds, copying does not."""
    from flows.registry import Registry

    home = tmp_path_factory.mktemp("store")
    Registry.open(Settings(home=home))
    return home / "mlruns" / "mlflow.db"


@pytest.fixture(scope="session")
def prefect_server(_quiet_tools: None) -> Iterator[None]:
    """One temporary Prefect server for all tests that run a flow; starting it takes seconds."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def project_settings(tmp_path: Path, _empty_store: Path) -> Iterator[Settings]:
    """Settings of a fresh project folder, which is also the one that `Settings.read()` finds."""
    with project(tmp_path / "project", _empty_store) as settings:
        yield settings


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory, _empty_store: Path) -> Iterator[Settings]:
    """The same, shared by the tests of one module."""
    with project(tmp_path_factory.mktemp("project"), _empty_store) as settings:
        yield settings


@contextmanager
def project(home: Path, empty_store: Path) -> Iterator[Settings]:
    """Write a project folder and make it the one of this process for the block."""
    (home / "mlruns").mkdir(parents=True)
    (home / "pyproject.toml").write_text(f'[project]\nname = "{PROJECT}"\n', encoding="utf-8")
    (home / "params.yaml").write_text(PARAMS, encoding="utf-8")
    shutil.copy(empty_store, home / "mlruns" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVDM_HOME", str(home))
        patch.setenv("CVDM_DEVICE", "cpu")
        patch.setenv("CVDM_REHEARSAL", "0")  # a service process for each promotion takes too long
        yield Settings.read()
