"""Kinds of fields that are looked at apart, by what input and target show and no model has made.

    structure   fine or coarse: gradient energy of the target, mean |grad|^2 / range^2
    input       bright or dim: signal-to-noise ratio of the input (`cvdm.inspection.noise`)
    session     of acquisition, where names or ingests tell it

Structure and input are split at the median of the test fields, so each holds half of them; among fields that
are all alike both halves are alike, too, which costs nothing but a comparison. A field with captures of
several sessions belongs to the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from cvdm.dataset import Pair
from cvdm.inspection.noise import measure_noise
from cvdm.metrics import target_range
from cvdm.patches import read_images
from flows.gate.background import Strata


def strata_of(pairs: Sequence[Pair]) -> Strata:
    """The label of every field by kind of stratum; kinds with one label only are left out.

    Raises ImageError, DatasetError where a pair cannot be read.
    """
    gradients: dict[str, list[float]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        for image in read_images(pair):
            gradients[pair.field].append(gradient_energy(image.high))
            noise = measure_noise(np.asarray(image.observation.centres[0]))
            if noise is not None:
                ratios[pair.field].append(noise.snr_db)
    sessions = {pair.field: f"session {pair.session}" for pair in reversed(pairs) if pair.session}
    strata = {
        "structure": _halves(gradients, "coarse structure", "fine structure"),
        "input": _halves(ratios, "dim input", "bright input"),
        "session": sessions,
    }
    return {kind: labels for kind, labels in strata.items() if len(set(labels.values())) > 1}


def gradient_energy(target: np.ndarray) -> float:
    """Mean squared gradient of (H, W) in squared ranges of the target per squared pixel."""
    rows, columns = np.gradient(target.astype(np.float64))
    span = target_range(target) or 1.0
    return float(np.mean(rows**2 + columns**2) / span**2)


def _halves(values: Mapping[str, Sequence[float]], low: str, high: str) -> dict[str, str]:
    """Fields below and above the median of their mean values; a field at the median counts as high."""
    means = {field: float(np.mean(own)) for field, own in values.items()}
    if not means:
        return {}
    middle = float(np.median(list(means.values())))
    return {field: low if value < middle else high for field, value in sorted(means.items())}
