"""What an operator sets, read once from `CVDM_*` environment variables. Nothing is read on import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cvdm.errors import ConfigError


def default_cache() -> Path:
    """The user's cache folder, by the XDG convention."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "cvdm" / "models"


class Settings(BaseSettings):
    """Frozen; every field is the environment variable `CVDM_` + its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="CVDM_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    tracking_uri: str = Field(min_length=1)
    """Where MLflow keeps runs and models: `sqlite:////absolute/path/mlflow.db` or `http://host:port`."""
    tasks: Annotated[tuple[str, ...], NoDecode] = ()
    """Tasks to serve, separated by commas; empty serves every `cvdm-*` model of the registry."""
    default_task: str | None = None
    """Task of a request that names none; without it, the only task served."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where networks run; `auto` takes a GPU when there is one."""
    poll_seconds: float = Field(default=5.0, gt=0)
    """Pause between two looks at the registry's aliases."""
    max_upload_bytes: int = Field(default=256 * 2**20, gt=0)
    """Largest image file accepted."""
    max_pixels: int = Field(default=2**24, gt=0)
    """Largest image accepted, counted after decoding."""
    refuse_doubtful: bool = False
    """Refuse images that differ from a model's training images in pixel size or intensities; else warn."""
    max_samples: int = Field(default=64, ge=2)
    """Most posterior draws that a request may ask for."""
    max_steps: int = Field(default=200, ge=1)
    """Most sampling steps that a request may ask for."""
    max_waiting: int = Field(default=32, ge=0)
    """Requests that may wait for the device; one more is told to come back later."""
    timeout_seconds: float = Field(default=900.0, gt=0)
    """Longest time from an accepted upload to its answer, waiting included."""
    model_memory_mib: int = Field(default=2048, ge=1)
    """MiB of weights that stay in memory; beyond, the model unused for longest makes room."""
    keys_file: Path | None = None
    """File of keys, made by `cvdm keys create`; until the first one, only this machine is answered."""
    jobs_dir: Path | None = None
    """Folder of jobs, their images and their results; without one there are no jobs."""
    max_job_upload_bytes: int = Field(default=16 * 2**30, gt=0)
    """Largest upload of a job, all its images together."""
    max_job_pixels: int = Field(default=2**33, gt=0)
    """Largest image of a job."""
    max_job_images: int = Field(default=1000, ge=1)
    """Most images of one user that wait or are worked on."""
    import_dir: Path | None = None
    """Folder whose images jobs may name instead of uploading them; whoever has a key may read all of it."""
    signals_dir: Path | None = None
    """Folder where a retraining looks for signals of drift; images are watched where there is `jobs_dir`."""
    drift_cooldown_hours: float = Field(default=168.0, ge=0)
    """After a signal of drift of a task, how long there is no other one."""
    shadow_share: float = Field(default=0.0, ge=0, le=1)
    """Of the images of jobs, how many a challenger restores too while the device is idle."""
    job_hours: float = Field(default=168.0, gt=0)
    """How long results are kept."""
    cache_dir: Path = Field(default_factory=default_cache)
    """Downloaded checkpoints; may be deleted whenever the service is stopped."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("jobs_dir", "keys_file", "import_dir", "signals_dir", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return value or None

    @classmethod
    def read(cls) -> Settings:
        """The settings of this process. Raises ConfigError that names the variable at fault."""
        try:
            return cls()  # type: ignore[call-arg]  # the environment supplies tracking_uri
        except ValidationError as error:
            first = error.errors()[0]
            name = f"CVDM_{str(first['loc'][0]).upper()}"
            if first["type"] == "missing":
                raise ConfigError(
                    f"the environment variable {name}",
                    "none",
                    "Set it, for instance CVDM_TRACKING_URI=sqlite:////absolute/path/mlruns/mlflow.db.",
                ) from error
            raise ConfigError(
                f"a valid {name}", f"{first['input']!r}: {first['msg']}", "Correct the environment variable."
            ) from error
