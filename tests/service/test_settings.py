"""What an operator sets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from cvdm.errors import ConfigError
from service.environment import DEFAULTS, set_defaults
from service.settings import Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv("CVDM_TRACKING_URI", raising=False)
    monkeypatch.delenv("CVDM_TASKS", raising=False)


def test_without_a_registry_the_message_names_the_variable():
    """A missing CVDM_TRACKING_URI is reported with an example."""
    with pytest.raises(ConfigError, match=r"CVDM_TRACKING_URI.*sqlite:////"):
        Settings.read()


def test_a_wrong_value_is_reported_with_its_variable(monkeypatch):
    """The message names the variable and the value."""
    monkeypatch.setenv("CVDM_TRACKING_URI", "sqlite:////a.db")
    monkeypatch.setenv("CVDM_POLL_SECONDS", "often")
    with pytest.raises(ConfigError, match=r"CVDM_POLL_SECONDS.*often"):
        Settings.read()


def test_tasks_are_separated_by_commas(monkeypatch):
    """CVDM_TASKS=a,b serves two tasks; settings cannot be changed later."""
    monkeypatch.setenv("CVDM_TRACKING_URI", "sqlite:////a.db")
    monkeypatch.setenv("CVDM_TASKS", "a, b,")
    settings = Settings.read()
    assert settings.tasks == ("a", "b")
    with pytest.raises(ValidationError):
        settings.device = "cuda"


def test_downloads_go_to_the_users_cache(monkeypatch):
    """The cache follows XDG_CACHE_HOME."""
    monkeypatch.setenv("CVDM_TRACKING_URI", "sqlite:////a.db")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert Settings.read().cache_dir == Path("/somewhere/cvdm/models")


@pytest.fixture
def _own_environment(monkeypatch):
    """What the import of the service sets for its own process is not for the tests that follow."""
    monkeypatch.setattr(os, "environ", dict(os.environ))


def test_what_libraries_are_told_is_what_the_operator_says(monkeypatch):
    """A variable that is set stays as it is; the second time there is nothing left to set."""
    told = {"OMP_WAIT_POLICY": "passive", **{name: "x" for name in DEFAULTS if name.startswith("MALLOC")}}
    monkeypatch.setattr(os, "environ", dict(told))
    assert set_defaults()
    assert os.environ == DEFAULTS | told
    assert not set_defaults()


@pytest.mark.usefixtures("_own_environment")
def test_the_service_stops_before_it_starts_on_a_wrong_setting():
    """`bentoml serve` ends with the message, before any worker runs."""
    from service.service import CvdmService

    with pytest.raises(SystemExit, match="CVDM_TRACKING_URI"):
        CvdmService.inner.check_settings()


@pytest.mark.usefixtures("_own_environment")
def test_the_service_listens_on_loopback_by_default():
    """Nobody outside reaches a service that was started without flags."""
    from service.service import CvdmService

    assert CvdmService.config["http"]["host"] == "127.0.0.1"
    assert CvdmService.config["workers"] == 1
