"""Signals of drift: small files that say that what comes in is no longer what a model has learned from.

    TASK-TIME-ORIGIN.json   one JSON object with exactly these keys:
        task      str    name of the task
        origin    str    "validation" (new pairs against the champion's) or "service" (requested images)
        at        str    ISO 8601 with offset
        features  list   of {"feature": str, "q_value": number, "effect": number}: what has shifted, the
                         chance of a false alarm after correction for the number of features, and the effect
                         size in -1..1 (Cliff's delta)
        message   str    the same for people

Written whole, under a temporary name that begins with a dot; a newer signal of the same task and origin takes
the place of an older one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from cvdm.inspection.shift import FeatureShift
from cvdm.storage import replacing

Origin = Literal["validation", "service"]
PATTERN = "[!.]*.json"
"""Of the names of signals in their folder."""


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
    def of(
        cls, task: str, origin: Origin, now: datetime, shifted: Iterable[FeatureShift], message: str
    ) -> Signal:
        """What has shifted, as a signal; each of them was tested."""
        features = tuple(Shift(one.feature, one.q_value or 0.0, one.effect or 0.0) for one in shifted)
        return cls(task, origin, now.isoformat(timespec="microseconds"), features, message)

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


def write_signal(folder: Path, signal: Signal) -> Path:
    """Keep a signal in the place of earlier ones of its origin; returns its file. Raises StorageError."""
    earlier = [path for path in folder.glob(PATTERN) if _same_source(path, signal)]
    stamp = datetime.fromisoformat(signal.at).astimezone(UTC).strftime("%Y%m%dT%H%M%S%f")
    path = folder / f"{signal.task}-{stamp}-{signal.origin}.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(asdict(signal), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for one in earlier:
        if one != path:
            one.unlink(missing_ok=True)
    return path


def read_signal(path: Path) -> Signal:
    """Raises OSError, and ValueError, TypeError, KeyError, AttributeError for what is no signal."""
    return Signal.from_json(json.loads(path.read_text(encoding="utf-8")))


def _same_source(path: Path, signal: Signal) -> bool:
    try:
        other = read_signal(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False  # whoever reads the folder says so
    return (other.task, other.origin) == (signal.task, signal.origin)
