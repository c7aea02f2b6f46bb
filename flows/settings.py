"""What an operator sets: one frozen value, read once at the edge from `CVDM_*` environment variables.

Every field is the variable `CVDM_` + its name in capitals. A default may name fields above it in braces.
Relative paths are taken from `home`. Nothing is read on import. The service has settings of its own, with
the same names where the meaning is the same.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cvdm.addresses import shown_uri
from cvdm.errors import ConfigError
from cvdm.storage import storage_error

PROJECT = "cvdm-platform"
"""The name in the project's own pyproject.toml, by which its folder is found."""

ADDRESSES = ("tracking_uri", "artifact_root", "prefect_url")
"""Settings that may carry a password."""
Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """Frozen; construct it with `Settings.read()`, which turns mistakes into a readable ConfigError."""

    model_config = SettingsConfigDict(
        env_prefix="CVDM_", frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )

    home: Path = Field(
        Path("{project}"), description="Project folder; found upwards from the current folder."
    )
    data_dir: Path = Field(Path("{home}/data"), description="Datasets, one folder per task.")
    params_file: Path = Field(Path("{home}/params.yaml"), description="Parameters of training and gate.")
    mlruns_dir: Path = Field(
        Path("{home}/mlruns"), description="Tracking database, artifacts, training states."
    )
    tracking_uri: str = Field(
        "sqlite:///{mlruns_dir}/mlflow.db",
        description="Where MLflow keeps runs and models: an absolute SQLite path, PostgreSQL, or a server.",
    )
    artifact_root: str = Field(
        "{mlruns_dir}/artifacts",
        description="Absolute folder or storage URL of MLflow's artifacts; a tracking server uses its own.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address that all servers bind to.")
    mlflow_port: Port = Field(5000, description="Port of the MLflow server.")
    prefect_port: Port = Field(4200, description="Port of the Prefect server.")
    service_port: Port = Field(3000, description="Port of the reconstruction service.")
    jobs_dir: Path = Field(
        Path("{mlruns_dir}/jobs"), description="The service's jobs, their images and their results."
    )
    keys_file: Path = Field(
        Path("{mlruns_dir}/keys.db"),
        description="Who may ask the service (`cvdm keys`); until the first key is made, this machine.",
    )
    prefect_url: str = Field("http://{host}:{prefect_port}/api", description="Address of Prefect's API.")
    tasks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Tasks to retrain on schedule and to serve, separated by commas; empty means all."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where networks run; auto takes a GPU if there is one.",
    )
    schedule_cron: str = Field("0 2 * * *", description="When `cvdm up` retrains, as a cron expression.")
    schedule_timezone: str = Field("UTC", description="Time zone of the schedule, an IANA name.")
    schedule_preset: str = Field("cpu", description="Preset of params.yaml that scheduled retrainings use.")
    triggers: Annotated[tuple[Literal["schedule", "data", "drift"], ...], NoDecode] = Field(
        ("schedule", "data", "drift"),
        description="What starts a retraining by itself, separated by commas; empty means nothing does.",
    )
    cooldown_hours: float = Field(
        6, ge=0, description="Hours between two retrainings of a task that start by themselves."
    )
    housekeeping_cron: str = Field(
        "0 4 * * 0", description="When `cvdm up` keeps house, as a cron expression; empty means never."
    )
    housekeeping_apply: bool = Field(
        False, description="Whether housekeeping by the clock removes what it finds, or only reports it."
    )
    backup_dir: str = Field(
        "",
        pattern=r"^(/.*)?$",
        description="Absolute folder where housekeeping by the clock writes a backup; empty for none.",
    )
    rehearsal: bool = Field(
        True, description="Whether a version must answer through a service process before it serves."
    )
    deploy_window_seconds: int = Field(
        120, ge=1, description="Longest time for the running service to take a champion over."
    )
    other_audit_logs: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Audit logs of other machines that share the registry; `cvdm audit verify` names each.",
    )
    alerts: SecretStr = Field(
        SecretStr(""),
        description="Where decisions and failures are told: Apprise addresses, file:///path.jsonl.",
    )
    country_iso: str = Field(
        "",
        pattern=r"^([A-Z]{3})?$",
        description="Whose electricity is used, ISO 3166 alpha-3 such as DEU; empty counts the world's mean.",
    )
    http_timeout_seconds: int = Field(
        10, ge=1, description="Longest wait for one answer of a tracking server."
    )
    http_retries: int = Field(2, ge=0, description="Repeats of a failed request to a tracking server.")

    @classmethod
    def read(cls, **overrides: Any) -> Settings:
        """The settings of this process; overrides win over the environment. Raises ConfigError."""
        try:
            return cls(**overrides)
        except ValidationError as error:
            first = error.errors()[0]
            field = str(first["loc"][0] if first["loc"] else "")
            given = shown_uri(str(first["input"])) if field in ADDRESSES else first["input"]
            message = first["msg"].removeprefix("Value error, ")
            raise ConfigError(
                f"a valid CVDM_{field.upper()}", f"{given!r} ({message})", "Correct the environment variable."
            ) from error

    @classmethod
    def prepared(cls) -> Settings:
        """The settings of this process, and its tools' environment. Raises ConfigError, StorageError."""
        settings = cls.read()
        settings.prepare_environment()
        return settings

    @property
    def audit_file(self) -> Path:
        """Where the decisions of this machine are kept; see flows/audit.py."""
        return self.mlruns_dir / "audit.jsonl"

    @property
    def signals_dir(self) -> Path:
        """Where signals of drift wait for a retraining; see flows/triggers/signals.py."""
        return self.mlruns_dir / "signals"

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Give each unset field its default, with the fields that it names filled in."""
        filled = dict(values)
        for name, field in cls.model_fields.items():
            if name not in filled and "{project}" in str(field.default):
                filled[name] = project_root(Path.cwd())
            elif name not in filled:
                default = field.default
                text = isinstance(default, str | Path)
                filled[name] = type(default)(str(default).format(**filled)) if text else default
            if field.annotation is Path:
                path = Path(filled[name]).expanduser()
                filled[name] = Path.cwd() / path if name == "home" else filled["home"] / path
        return filled

    @field_validator("home", "data_dir", "params_file", "mlruns_dir")
    @classmethod
    def _plain(cls, path: Path) -> Path:
        return Path(os.path.normpath(path))

    @field_validator("tracking_uri")
    @classmethod
    def _absolute_database(cls, uri: str) -> str:
        if uri.startswith("sqlite:") and not uri.startswith("sqlite:////"):
            raise ValueError(
                "a SQLite database needs an absolute path, with four slashes: sqlite:////path/mlflow.db"
            )
        if "://" not in uri:
            raise ValueError("MLflow 3 refuses plain folders; use sqlite:////absolute/path/mlflow.db")
        return uri

    @field_validator("artifact_root")
    @classmethod
    def _absolute_artifacts(cls, root: str) -> str:
        if "://" not in root and not Path(root).is_absolute():
            raise ValueError("a folder must be absolute, or artifacts land wherever a process was started")
        return root

    @field_validator("tasks", "triggers", "other_audit_logs", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("schedule_timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("not an IANA time zone such as Europe/Berlin")
        return name

    def dataset_dir(self, task: str) -> Path:
        """The dataset folder of a task. Raises ConfigError for a name that is none."""
        from cvdm.card import TASK_NAME  # its optics take a second to import

        if not re.fullmatch(TASK_NAME, task):
            raise ConfigError("a task name of a-z, 0-9 and hyphens", f"'{task}'", "Give no path.")
        return self.data_dir / task

    @property
    def machine(self) -> str:
        """Where this platform keeps what it is working on: other machines may share its registry."""
        return f"{socket.gethostname()}:{self.mlruns_dir}"

    def known_tasks(self) -> tuple[str, ...]:
        """The tasks that are set, or every folder of `data_dir` with a dataset card."""
        return self.tasks or tuple(sorted(card.parent.name for card in self.data_dir.glob("*/card.yaml")))

    def tool_environment(self) -> dict[str, str]:
        """What the tools underneath must know: no telemetry, state below `mlruns_dir`, bounded waiting."""
        return {
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "BENTOML_DO_NOT_TRACK": "True",
            "DVC_NO_ANALYTICS": "1",
            "GX_ANALYTICS_ENABLED": "false",
            "PREFECT_HOME": str(self.mlruns_dir / "prefect"),
            # Metrics lie below it, and a service that starts clears them: never share a person's own.
            "BENTOML_HOME": str(self.mlruns_dir / "bentoml"),
            # Its interface keeps every log; on the terminal a failure is one paragraph, without a traceback.
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
            # Where the orchestrator is away, each of its events would come to the terminal, whole.
            "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
            # A job runner of seven processes that nothing here uses: 700 MiB, and a minute to start.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(self.http_retries),
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(self.http_timeout_seconds),
        }

    def prepare_environment(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Put `tool_environment` into this process (or `environment`), but never over what a person has set.

        Call it before mlflow, prefect, bentoml, dvc or great_expectations are imported. Makes `mlruns_dir`,
        where their state goes. Raises StorageError when it cannot.
        """
        try:
            self.mlruns_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.mlruns_dir) from error
        target = os.environ if environment is None else environment
        for name, value in self.tool_environment().items():
            target.setdefault(name, value)


def project_root(start: Path) -> Path:
    """The nearest folder from `start` upwards with this project's pyproject.toml. Raises ConfigError."""
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file() and _project_name(file) == PROJECT:
            return folder
    raise ConfigError(
        f"the current folder to lie in a checkout of {PROJECT}",
        str(start),
        "Change into the project's folder, or set CVDM_HOME to it.",
    )


def settings_table() -> str:
    """The settings as a Markdown table, as the README shows it."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        default = f"`{value}`" if str(value) else "empty"
        rows.append(f"| `CVDM_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def _project_name(file: Path) -> str | None:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}).get("name")
    except (tomllib.TOMLDecodeError, OSError):
        return None
