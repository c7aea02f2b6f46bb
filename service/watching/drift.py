"""Are the images that users send still like those that they sent to this champion before?

The first `REFERENCE` sittings with a version are its reference. Every `WINDOW` sittings after that are
compared with it once: a test per feature, false discoveries controlled, and an effect that matters
(cvdm/inspection/shift.py). Where nothing has shifted they join the reference, of which the newest `LARGEST`
count; where something has, they do not, and a signal asks for a retraining (cvdm/drift_signal.py), though not
again within the cool-down. Windows do not overlap, so a facility that looks for years does not see drift by
looking often. Not covered: a drift so slow that each window resembles the `LARGEST` sittings before it; what
validation compares with the training data tells that.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cvdm.drift_signal import Signal, write_signal
from cvdm.inspection.shift import FeatureShift, distribution_shift, shifted
from service.watching.sittings import Features, Sittings

log = logging.getLogger(__name__)
REFERENCE, WINDOW, LARGEST = 16, 8, 64
LEVEL = 0.01
"""Expected share of false alarms among the features that are called shifted, at each window."""
KEPT_SHIFTED = 64


@dataclass(frozen=True)
class Judgement:
    """One window against the reference of its time."""

    task: str
    features: tuple[FeatureShift, ...]
    signalled: bool
    """Whether a signal was given."""

    @property
    def shifted(self) -> tuple[FeatureShift, ...]:
        """Features whose difference is neither chance nor small."""
        return shifted(self.features, LEVEL)


class DriftWatch:
    """Of all tasks; used from one thread."""

    def __init__(self, sittings: Sittings, signals: Path | None, cooldown_seconds: float) -> None:
        """signals: the folder where a retraining looks for them; None gives none."""
        self._sittings, self._signals, self._cooldown = sittings, signals, cooldown_seconds

    def observe(self, task: str, run_id: str, owner: str, features: Features, at: float) -> list[Judgement]:
        """An image that a task's champion restored; returns what could be judged by now. Raises StorageError.

        at: seconds since 1970.
        """
        self._sittings.add(run_id, owner, features, at)
        found = []
        reference = self._sittings.of_role(run_id, "reference", LARGEST)
        waiting = self._sittings.of_role(run_id, "waiting")
        missing = max(0, REFERENCE - len(reference))
        self._sittings.become((id for id, _ in waiting[:missing]), "reference")
        reference, waiting = reference + waiting[:missing], waiting[missing:]
        while len(waiting) >= WINDOW:
            window, waiting = waiting[:WINDOW], waiting[WINDOW:]
            judgement = self._judged(task, reference, window, at)
            ids = [id for id, _ in window]
            if judgement.shifted:
                self._sittings.become(ids, "shifted")
                self._sittings.forget(run_id, "shifted", KEPT_SHIFTED)
            else:
                self._sittings.become(ids, "reference")
                self._sittings.forget(run_id, "reference", LARGEST)
                reference = (reference + window)[-LARGEST:]
            found.append(judgement)
        return found

    def close(self) -> None:
        """Nothing is written after this."""
        self._sittings.close()

    def _judged(
        self,
        task: str,
        reference: Sequence[tuple[int, Features]],
        window: Sequence[tuple[int, Features]],
        at: float,
    ) -> Judgement:
        features = distribution_shift(_columns(reference), _columns(window))
        found = Judgement(task, features, signalled=False)
        if not found.shifted:
            return found
        lines = "\n".join(f"  {one.summary()}" for one in found.shifted)
        message = f"the last {len(window)} sittings against {len(reference)} before them\n{lines}"
        log.warning("%s: drift, %s", task, " ".join(message.split()))
        last = self._sittings.last_signal(task)
        if self._signals is None or (last is not None and at - last < self._cooldown):
            return found
        now = datetime.fromtimestamp(at, UTC)
        write_signal(self._signals, Signal.of(task, "service", now, found.shifted, message))
        self._sittings.signalled(task, at)
        return Judgement(task, features, signalled=True)


def _columns(sittings: Sequence[tuple[int, Features]]) -> dict[str, np.ndarray]:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for _, features in sittings:
        for name, value in features.items():
            values[name].append(value)
    return {name: np.array(found) for name, found in values.items()}
