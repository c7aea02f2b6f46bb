"""Whether two images show the same scene under a given geometry: their thumbnails are correlated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from cvdm.inspection.duplicate_geometry import Geometry
from cvdm.inspection.fingerprints import THUMBNAIL_CELL, Fingerprint

INDEPENDENT = 16  # thumbnail pixels that count as one observation, for the width of the band
SMALLEST_SHARED = 4  # observations, below which no correlation is taken


@dataclass(frozen=True)
class Duplicate:
    """Two images that seem to share a part of their field of view.

    first, second: names, first < second.
    score:         0 to 1: what the correlation is at least (two standard errors of Fisher's z below), times
                   (matches - 1) / (matches + 1), so that neither a small shared area nor few keypoints score
                   high.
    matches:       keypoints that agree on one geometry.
    correlation:   of the two thumbnails over the shared area, -1 to 1.
    overlap:       shared area as a fraction of the smaller image, 0 to 1.
    mirrored:      whether one is a mirror image of the other.
    """

    first: str
    second: str
    score: float
    matches: int
    correlation: float
    overlap: float
    mirrored: bool


def proven(first: tuple[str, Fingerprint], second: tuple[str, Fingerprint], geometry: Geometry) -> Duplicate:
    """Two images, each with its name, as duplicates under a geometry; the score says how likely that is."""
    (name, one), (other_name, other) = first, second
    correlation, observations = _correlation(one.thumbnail, other.thumbnail, geometry)
    return Duplicate(
        first=name,
        second=other_name,
        score=_at_least(correlation, observations) * (geometry.votes - 1) / (geometry.votes + 1),
        matches=geometry.votes,
        correlation=correlation,
        overlap=_overlap(one.shape, other.shape, geometry),
        mirrored=bool(np.linalg.det(geometry.matrix) < 0),
    )


def _at_least(correlation: float, observations: float) -> float:
    """The correlation less two standard errors of Fisher's z, not below 0."""
    if observations < SMALLEST_SHARED:
        return 0.0
    z = np.arctanh(min(correlation, 1 - 1e-6)) - 2 / np.sqrt(observations - 3)
    return max(0.0, float(np.tanh(z)))


def _correlation(one: np.ndarray, other: np.ndarray, geometry: Geometry) -> tuple[float, float]:
    """Pearson's correlation of two thumbnails where both lie, and how many observations it rests on."""
    centre = (THUMBNAIL_CELL - 1) / 2
    rows, columns = np.indices(other.shape).reshape(2, -1)
    places = np.stack([rows, columns]) * THUMBNAIL_CELL + centre
    source = geometry.matrix.T @ (places - geometry.displacement[:, None])
    source = (source - centre) / THUMBNAIL_CELL
    limits = np.array(one.shape)[:, None] - 1
    inside = np.all((source >= 0) & (source <= limits), axis=0)
    observations = float(inside.sum()) / INDEPENDENT
    if observations < SMALLEST_SHARED:
        return 0.0, observations
    a = map_coordinates(one.astype(np.float32), source[:, inside], order=1)
    b = other[rows[inside], columns[inside]].astype(np.float32)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return (float(np.clip((a @ b) / norm, -1, 1)) if norm > 0 else 0.0), observations


def _overlap(one: np.ndarray, other: np.ndarray, geometry: Geometry) -> float:
    """Area of the first image, laid over the second, that both share, as a fraction of the smaller."""
    corners = np.array([[-0.5, -0.5], one - 0.5]) @ geometry.matrix.T + geometry.displacement
    low, high = np.maximum(corners.min(axis=0), -0.5), np.minimum(corners.max(axis=0), other - 0.5)
    area = np.prod(np.maximum(high - low, 0))
    return float(area / min(np.prod(one.astype(np.float64)), np.prod(other.astype(np.float64))))
