"""Signals of drift (cvdm/drift_signal.py) on their way: mlruns/signals/TASK-TIME-ORIGIN.json.

A signal stays until the retraining that it caused has begun, then it moves to `answered/`; what cannot be
read moves to `malformed/`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cvdm.drift_signal import PATTERN, Signal, read_signal
from flows.console import say
from flows.settings import Settings

ANSWERED, MALFORMED = "answered", "malformed"


def read_signals(settings: Settings) -> dict[Path, Signal]:
    """Every signal that waits for its answer, the oldest first; what cannot be read is moved aside."""
    found = {}
    for path in sorted(settings.signals_dir.glob(PATTERN)):
        try:
            found[path] = read_signal(path)
        except FileNotFoundError:
            continue  # answered meanwhile by another process
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            _move(path, MALFORMED)
            say(f"{path.name} is no signal ({error}); it was moved to {MALFORMED}/ beside it.")
    return dict(sorted(found.items(), key=lambda one: datetime.fromisoformat(one[1].at)))


def answer(settings: Settings, names: tuple[str, ...]) -> None:
    """Set signals aside whose retraining has begun."""
    for name in names:
        _move(settings.signals_dir / name, ANSWERED)


def _move(path: Path, folder: str) -> None:
    target = path.parent / folder
    try:
        target.mkdir(exist_ok=True)
        path.replace(target / path.name)
    except FileNotFoundError:
        return  # moved by another process
