"""Settings: where things lie, what is refused, and that tools are kept quiet."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from cvdm.errors import ConfigError
from cvdm.params import load_recipe, load_section
from flows.gate import load_policy
from flows.settings import PROJECT, Settings, project_root, settings_table
from flows.validation import load_validation_policy


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CVDM_{name.upper()}", raising=False)


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "{PROJECT}"\n')
    return tmp_path


def test_everything_lies_below_the_project_found_upwards_from_the_current_folder(project, monkeypatch):
    """Defaults are absolute, whatever subfolder the command was started in."""
    (project / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(project / "a" / "b")
    settings = Settings.read()
    assert settings.home == project
    assert settings.data_dir == project / "data"
    assert settings.tracking_uri == f"sqlite:///{project}/mlruns/mlflow.db"
    assert settings.artifact_root == f"{project}/mlruns/artifacts"
    assert settings.prefect_url == "http://127.0.0.1:4200/api"


def test_a_folder_of_another_project_is_passed_over(project, monkeypatch):
    """Only a pyproject.toml that names this project counts."""
    inner = project / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text('[project]\nname = "something-else"\n')
    assert project_root(inner) == project


def test_outside_a_project_the_remedy_is_named(tmp_path, monkeypatch):
    """Without a project the message says how to name one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="CVDM_HOME"):
        Settings.read()


def test_derived_defaults_follow_what_is_set(tmp_path, monkeypatch):
    """A moved mlruns folder takes its database along; a changed port changes the address."""
    monkeypatch.setenv("CVDM_HOME", str(tmp_path))
    monkeypatch.setenv("CVDM_MLRUNS_DIR", "elsewhere")
    monkeypatch.setenv("CVDM_PREFECT_PORT", "4300")
    settings = Settings.read()
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/elsewhere/mlflow.db"
    assert settings.prefect_url == "http://127.0.0.1:4300/api"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRACKING_URI", "sqlite:///mlruns/mlflow.db"),
        ("TRACKING_URI", "/plain/folder"),
        ("ARTIFACT_ROOT", "relative/folder"),
        ("MLFLOW_PORT", "0"),
        ("DEVICE", "tpu"),
        ("SCHEDULE_TIMEZONE", "Middle/Earth"),
    ],
)
def test_a_wrong_value_is_refused_by_the_variable_s_name(tmp_path, monkeypatch, variable, value):
    """The message names the variable to correct."""
    monkeypatch.setenv("CVDM_HOME", str(tmp_path))
    monkeypatch.setenv(f"CVDM_{variable}", value)
    with pytest.raises(ConfigError, match=f"CVDM_{variable}"):
        Settings.read()


@pytest.mark.parametrize("variable", ["TRACKING_URI", "ARTIFACT_ROOT"])
def test_an_address_without_its_scheme_is_refused_without_its_password(tmp_path, monkeypatch, variable):
    """A frequent slip; neither the message nor its cause shows what opens the store."""
    monkeypatch.setenv("CVDM_HOME", str(tmp_path))
    monkeypatch.setenv(f"CVDM_{variable}", "ada:secret@tracker:5000")
    with pytest.raises(ConfigError, match="'tracker:5000'") as refusal:
        Settings.read()
    assert "secret" not in "".join(traceback.format_exception(refusal.value))


def test_unknown_settings_and_changes_are_refused(tmp_path):
    """A misspelt override fails, and a settings value never changes."""
    with pytest.raises(ConfigError, match="CVDM_DATA_DIRECTORY"):
        Settings.read(home=tmp_path, data_directory="x")
    with pytest.raises(ValidationError):
        Settings.read(home=tmp_path).host = "::1"


def test_tasks_are_listed_or_found(tmp_path, monkeypatch):
    """Without a list, every folder with a dataset card is a task."""
    (tmp_path / "data" / "nuclei").mkdir(parents=True)
    (tmp_path / "data" / "nuclei" / "card.yaml").write_text("")
    (tmp_path / "data" / "odd").mkdir()
    assert Settings.read(home=tmp_path).known_tasks() == ("nuclei",)
    monkeypatch.setenv("CVDM_TASKS", "a, b")
    assert Settings.read(home=tmp_path).known_tasks() == ("a", "b")


def test_tools_are_quiet_unless_a_person_said_otherwise(tmp_path):
    """Telemetry is off by default, and what is set already stays."""
    environment = {"PREFECT_HOME": "/chosen"}
    Settings.read(home=tmp_path).prepare_environment(environment)
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["PREFECT_HOME"] == "/chosen"
    assert environment["BENTOML_HOME"] == str(tmp_path / "mlruns" / "bentoml")


def test_the_parameters_of_this_repository_are_valid():
    """Every preset and both policies of the shipped params.yaml are read as the commands read them."""
    params = Path(__file__).parents[2] / "params.yaml"
    presets = load_section(params, "presets")
    assert {"smoke", "demo", "cpu", "gpu"} <= set(presets)
    for preset in presets:
        load_recipe(params, preset)
    load_policy(params)
    load_validation_policy(params)


def test_the_table_names_every_variable():
    """The README's table is complete by construction."""
    table = settings_table()
    assert all(f"`CVDM_{name.upper()}`" in table for name in Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


def test_nothing_happens_on_import(tmp_path):
    """Importing the module outside of any project neither fails nor sets a variable."""
    root = Path(__file__).parents[2]
    code = (
        "import os, sys; before = dict(os.environ); "
        f"sys.path.insert(0, {str(root)!r}); import flows.settings; assert before == dict(os.environ)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
