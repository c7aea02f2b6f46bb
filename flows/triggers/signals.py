"""Signals of drift: small files that say that what comes in is no longer what a model has learned from.

    mlruns/signals/TASK-TIME-ORIGIN.json   one JSON object with exactly these keys:
        task      str    name of the task
        origin    str    "validation" (new pairs against the champion's) or "service" (requested images)
        at        str    ISO 8601 with offset
        features  list   of {"feature": str, "q_value": number, "effect": number}: what has shifted, the
                         chance of a false alarm after correction for the number of features, and the effect
                         size in -1..1 (Cliff's delta)
        message   str    the same for people

Written whole, under a temporary name that begins with a dot; a newer signal of the same task and origin takes
the place of an older one. A signal stays until the retraining that it caused has begun, then it moves to
`answered/`; what cannot be read moves to `malformed/`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from cvdm.storage import replacing
from flows.console import say
from flows.plain_json import plain_json
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.validation.drift import Drift

Origin = Literal["validation", "service"]
ANSWERED, MALFORMED = "answered", "malformed"


@dataclass(frozen=True)
class Shift:
    """One feature that has shifted."""

    feature: str
    q_value: float
    effect: float


@dataclass(frozen=True)
class Signal:
    """The content of one file; see the module."""

    task: str
    origin: Origin
    at: str
    features: tuple[Shift, ...]
    message: str

    @classmethod
    def from_json(cls, document: Any) -> Signal:
        """Raises ValueError, TypeError, KeyError for what is no signal."""
        if set(document) != set(cls.__dataclass_fields__):
            raise ValueError(f"keys {sorted(document)} instead of {sorted(cls.__dataclass_fields__)}")
        signal = cls(**{**document, "features": tuple(Shift(**one) for one in document["features"])})
        texts = (signal.task, signal.message, *(one.feature for one in signal.features))
        if not all(isinstance(text, str) for text in texts) or signal.origin not in get_args(Origin):
            raise ValueError("a text that is none, or an unknown origin")
        if not all(math.isfinite(one.q_value) and math.isfinite(one.effect) for one in signal.features):
            raise ValueError("a feature without finite q_value and effect")
        if datetime.fromisoformat(signal.at).tzinfo is None:
            raise ValueError("a time without its offset")
        return signal


def write_signal(settings: Settings, signal: Signal) -> Path:
    """Keep a signal in the place of earlier ones of its origin; returns its file. Raises StorageError."""
    earlier = [file for file, one in read_signals(settings).items() if _same_source(one, signal)]
    stamp = datetime.fromisoformat(signal.at).astimezone(UTC).strftime("%Y%m%dT%H%M%S%f")
    path = signals_folder(settings) / f"{signal.task}-{stamp}-{signal.origin}.json"
    with replacing(path) as temporary:
        temporary.write_text(plain_json(asdict(signal)) + "\n", encoding="utf-8")
    for file in earlier:
        if file != path:
            file.unlink(missing_ok=True)
    return path


def signal_of(task: str, drift: Drift, now: datetime) -> Signal | None:
    """What validation has to say; None where nothing has shifted."""
    if not drift.shifted:
        return None
    features = tuple(Shift(one.feature, one.q_value or 0.0, one.effect or 0.0) for one in drift.shifted)
    return Signal(task, "validation", now.isoformat(timespec="microseconds"), features, drift.summary())


def read_signals(settings: Settings) -> dict[Path, Signal]:
    """Every signal that waits for its answer, the oldest first; what cannot be read is moved aside."""
    found = {}
    for path in sorted(signals_folder(settings).glob("[!.]*.json")):
        try:
            found[path] = Signal.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            continue  # answered meanwhile by another process
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            _move(path, MALFORMED)
            say(f"{path.name} is no signal ({error}); it was moved to {MALFORMED}/ beside it.")
    return dict(sorted(found.items(), key=lambda one: datetime.fromisoformat(one[1].at)))


def answer(settings: Settings, names: tuple[str, ...]) -> None:
    """Set signals aside whose retraining has begun."""
    for name in names:
        _move(signals_folder(settings) / name, ANSWERED)


def signals_folder(settings: Settings) -> Path:
    """Where they wait."""
    return settings.mlruns_dir / "signals"


def _same_source(one: Signal, other: Signal) -> bool:
    return (one.task, one.origin) == (other.task, other.origin)


def _move(path: Path, folder: str) -> None:
    target = path.parent / folder
    try:
        target.mkdir(exist_ok=True)
        path.replace(target / path.name)
    except FileNotFoundError:
        return  # moved by another process
