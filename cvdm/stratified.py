"""Is the interval as good everywhere? Scores of an image's pixels apart by brightness and by structure.

Intensity: thirds of the pixels by the posterior *mean*, image by image. A stratum must not be chosen by what
is to be covered: among pixels with a bright target are those whose noise made them bright, so even an ideal
posterior covers too few of them (tested). The mean is known before the target, and to whoever uses a result.

Structure: edges and smooth areas, by Otsu's threshold of the gradient of the target at a scale of EDGE_SCALE.
A derivative of a Gaussian is zero in its middle, so a pixel's own noise has no say in its class; the same for
every model, so that versions compare; and other than brightness, so that it adds to the thirds. Gradients are
clipped at their 99.9 percentile before, so that a few bright dots do not move the threshold.

Strata that an image does not have are left out. AUSE within a stratum is harder than in the image: there the
uncertainty cannot gain by telling bright from dark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_gradient_magnitude
from skimage.filters import threshold_otsu

from cvdm.metrics import ause, coverage, target_range

INTENSITIES = ("dim", "middle", "bright")
"""Thirds by posterior mean."""
STRUCTURES = ("smooth", "edges")
EDGE_SCALE = 2.0
"""Sigma in pixels, about that of a point seen through the optics."""
SCORES = ("share", "coverage", "width", "mae", "crps", "ause")
"""Of a stratum, in the order in which people read them."""
FEWEST = 100
"""Pixels without which nothing is said of a stratum."""


@dataclass(frozen=True)
class Judged:
    """One restored image and its target, arrays (H, W) in file units."""

    mean: np.ndarray
    std: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    crps: np.ndarray
    target: np.ndarray


def stratified(image: Judged) -> dict[str, dict[str, float]]:
    """By stratum: coverage; width, crps and mae as shares of the image's range; ause; share of the pixels."""
    span = target_range(image.target)
    return {
        name: _scores(image, pixels, span)
        for name, pixels in strata_of_pixels(image.mean, image.target).items()
        if pixels.sum() >= FEWEST
    }


def strata_of_pixels(mean: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """By stratum, which pixels (H, W) belong to it; those of each kind are disjoint and cover the image."""
    lower, upper = np.quantile(mean, (1 / 3, 2 / 3))
    dim, bright = mean <= lower, mean > upper
    structured = edges(target)
    classes = (dim, ~dim & ~bright, bright, ~structured, structured)
    return dict(zip((*INTENSITIES, *STRUCTURES), classes, strict=True))


def edges(target: np.ndarray) -> np.ndarray:
    """Where the target has structure; nowhere in a flat one."""
    slope = gaussian_gradient_magnitude(target.astype(np.float64), EDGE_SCALE)
    slope = np.minimum(slope, np.percentile(slope, 99.9))
    return slope > threshold_otsu(slope)


def strata_table(strata: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The scores by stratum, metric and field as means over fields, for people."""
    lines = [f"{'pixels':18}" + "".join(f"{name:>10}" for name in SCORES)]
    for stratum, scores in strata.items():
        means = (np.mean(list(scores[name].values())) for name in SCORES)
        lines.append(f"{stratum:18}" + "".join(f"{value:10.4f}" for value in means))
    return "\n".join(lines)


def _scores(image: Judged, pixels: np.ndarray, span: float) -> dict[str, float]:
    lower, upper, target = (values[pixels] for values in (image.lower, image.upper, image.target))
    error = np.abs(image.mean[pixels] - target)
    return {
        "coverage": coverage(lower, upper, target),
        "width": float((upper - lower).mean()) / span,
        "mae": float(error.mean()) / span,
        "crps": float(image.crps[pixels].mean()) / span,
        "ause": ause(image.std[pixels], error),
        "share": float(pixels.mean()),
    }
