"""What any model has to beat: the input as it is, the best blur, Richardson-Lucy where a PSF is known.

The blur's sigma and the number of Richardson-Lucy iterations are chosen once per dataset, by the mean fitted
PSNR over the train and validation pairs (their central crops), and never see a calibration or test field.
Of an input of several channels they get the restored one, of a coarser one its interpolation on the target's
grid, of a stack plane by plane. Richardson-Lucy needs input and target on one grid, so a factor has none.
The regression mean, which needs a trained model, is added by cvdm/measuring.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from cvdm.dataset import Dataset
from cvdm.metrics import fit_intensity, psnr, target_range
from cvdm.optics import blur, richardson_lucy
from cvdm.patches import read_images

Restorer = Callable[[np.ndarray], np.ndarray]
"""From an image (H, W) to its restoration (H, W) float32, both in the input's units."""

Parameter = TypeVar("Parameter", int, float)

INPUT, BEST_BLUR, RICHARDSON_LUCY = "input", "best-blur", "richardson-lucy"
SIGMAS = tuple(float(sigma) for sigma in np.arange(0.25, 3.01, 0.25))  # px
ITERATIONS = (2, 5, 10, 20, 40, 80)
CROP = 256  # px, side of the central crops that parameters are chosen on


@dataclass(frozen=True)
class Baselines:
    """Classical restorers fitted to one dataset.

    blur_sigma: of the best Gaussian blur, px.
    psf_sigma:  of the card's forward model, px; None where the card knows none.
    iterations: of Richardson-Lucy; None where psf_sigma is.
    """

    blur_sigma: float
    psf_sigma: float | None = None
    iterations: int | None = None

    def restorers(self) -> dict[str, Restorer]:
        """The restorers by name, the plain input first."""
        named = {INPUT: as_is, BEST_BLUR: gaussian_blur(self.blur_sigma)}
        if self.psf_sigma is not None and self.iterations is not None:
            named[RICHARDSON_LUCY] = deconvolution(self.psf_sigma, self.iterations)
        return named


def fit_baselines(dataset: Dataset) -> Baselines:
    """Choose the baselines' parameters on train and validation pairs.

    Raises DatasetError when the train split is empty, ImageError when an image cannot be read.
    """
    dataset.require_splits("train")
    pairs = [
        (_centre(image.low), _centre(image.high))
        for pair in (*dataset.split("train"), *dataset.split("validation"))
        for image in read_images(pair)
    ]
    sigma = _best(SIGMAS, gaussian_blur, pairs)
    model = dataset.card.forward_model
    if model is None:
        return Baselines(sigma)
    iterations = _best(ITERATIONS, lambda count: deconvolution(model.psf_sigma_px, count), pairs)
    return Baselines(sigma, model.psf_sigma_px, iterations)


def as_is(image: np.ndarray) -> np.ndarray:
    """The input itself, float32."""
    return image.astype(np.float32)


def gaussian_blur(sigma: float) -> Restorer:
    """Gaussian blur of that sigma (px)."""
    return lambda image: blur(image, sigma).astype(np.float32)


def deconvolution(psf_sigma: float, iterations: int) -> Restorer:
    """Richardson-Lucy with a Gaussian PSF, that many iterations."""
    return lambda image: richardson_lucy(image, psf_sigma, iterations)


def _best(
    candidates: Iterable[Parameter],
    restorer: Callable[[Parameter], Restorer],
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> Parameter:
    """The candidate of the highest mean fitted PSNR over the pairs; flat targets are skipped."""
    ranged = [(low, high, target_range(high)) for low, high in pairs if np.ptp(high) > 0]

    def total_psnr(candidate: Parameter) -> float:
        restore = restorer(candidate)
        return sum(psnr(fit_intensity(restore(low), high), high, span) for low, high, span in ranged)

    return max(candidates, key=total_psnr)


def _centre(image: np.ndarray) -> np.ndarray:
    """The central square of CROP px, or as much of it as there is."""
    top, left = (max(0, (extent - CROP) // 2) for extent in image.shape)
    return image[top : top + CROP, left : left + CROP]
