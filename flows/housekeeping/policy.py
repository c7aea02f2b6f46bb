"""What is kept, and for how long: section `retention` of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from cvdm.errors import ConfigError
from cvdm.params import from_mapping, load_section


@dataclass(frozen=True)
class RetentionPolicy:
    """How much of the past is kept; see flows/housekeeping/retain.py for what is never removed."""

    keep_versions: int = 10
    """Newest versions of each task that stay, whatever their verdict."""
    keep_promoted: int = 5
    """Latest promoted versions of each task that stay as targets of a rollback."""
    keep_days: int = 90
    """Age below which no version goes."""
    keep_states_days: int = 14
    """Age of a finished run at which its training state goes; weights, metrics and pictures stay."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ConfigError(
                    f"retention.{field.name} of at least 0",
                    str(getattr(self, field.name)),
                    "Correct the section `retention` of params.yaml.",
                )


def load_retention(params: Path) -> RetentionPolicy:
    """The section `retention` of a params.yaml. Raises ConfigError on unknown keys."""
    return from_mapping(RetentionPolicy, load_section(params, "retention"), "retention")
