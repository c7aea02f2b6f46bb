"""The optics of a widefield fluorescence microscope, as a forward model and its classical inversion.

    electrons = photons / full_scale * (PSF * target)          PSF: Gaussian of psf_sigma_px, unit sum
    counts    = round(Poisson(electrons) + Normal(0, read_noise) + offset)
    image     = (counts - offset) * full_scale / photons       back in the target's units

One count is one electron. A Gaussian of sigma 0.21 wavelength / NA is the usual approximation of a widefield
PSF in focus. The scene outside the field of view is unknown: it is taken as the mirror image of the inside
(half-sample symmetric, "reflect"), which keeps the mean and makes the blur its own adjoint.

Not covered: out-of-focus light, pixel-dependent gain, aberrations, wavelengths of a broad band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

TRUNCATE = 4.0  # the PSF ends at this many sigma


@dataclass(frozen=True)
class ForwardModel:
    """How a target becomes an acquired image.

    psf_sigma_px: standard deviation of the Gaussian point-spread function, in pixels.
    photons:      mean photons detected in an unblurred pixel whose target value is full_scale.
    full_scale:   target value that `photons` refers to.
    read_noise:   standard deviation of the camera's noise, in electrons.
    offset:       the camera's dark level, in counts; subtracted again, so that units agree with the target's.
    seed:         base of each image's own random seed.
    """

    psf_sigma_px: float
    photons: float
    full_scale: float
    read_noise: float
    offset: float
    seed: int


def psf_radius(sigma: float) -> int:
    """Pixels from the middle of `gaussian_psf` to its edge."""
    return int(TRUNCATE * sigma + 0.5)


def gaussian_psf(sigma: float) -> np.ndarray:
    """The point-spread function as an array (odd side, unit sum), cut at four sigma."""
    assert sigma > 0, sigma
    radius = psf_radius(sigma)
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    psf = np.outer(line, line)
    return psf / psf.sum()


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve (H, W) with `gaussian_psf(sigma)` in float64, mirrored at the borders."""
    return gaussian_filter(image.astype(np.float64), sigma, mode="reflect", truncate=TRUNCATE)


def simulate_widefield(target: np.ndarray, model: ForwardModel, seed: int) -> np.ndarray:
    """One widefield acquisition of target (H, W), float64 in the target's units; noise can be negative.

    The same target, model and seed give the same pixels. Negative target values hold no photons.
    """
    rng = np.random.default_rng(seed)
    gain = model.photons / model.full_scale
    electrons = blur(np.clip(target, 0, None), model.psf_sigma_px) * gain
    counts = np.rint(rng.poisson(electrons) + rng.normal(0, model.read_noise, target.shape) + model.offset)
    return (np.clip(counts, 0, None) - model.offset) / gain


def forward_residual(reconstruction: np.ndarray, image: np.ndarray, model: ForwardModel) -> float:
    """RMS of the `residual_map` of a reconstruction (H, W).

    An unbiased image and a reconstruction equal to the truth give 1; an offset, a gain, a shift or invented
    structure give more. Dark pixels that were clipped when stored raise it for everybody, so compare models
    on one image, not images.
    """
    return float(np.sqrt(np.mean(residual_map(reconstruction, image, model) ** 2)))


def residual_map(reconstruction: np.ndarray, image: np.ndarray, model: ForwardModel) -> np.ndarray:
    """How far a reconstruction (H, W), seen through the optics, is from the image that was acquired.

        z = (image - PSF * reconstruction) / noise        per pixel, in standard deviations of its noise
        residual = (PSF * z) / sqrt(sum PSF^2)            (H, W) float64

    The residual is averaged over a point-spread function: no detail below it can tell the two apart, and the
    noise of single pixels would hide what can. Of the truth, every pixel's is a draw from a standard normal
    distribution, apart from the borders; it is positive where the image has light that the reconstruction
    leaves out, negative where the reconstruction has structure that the image does not show.
    """
    gain, sigma = model.photons / model.full_scale, model.psf_sigma_px
    expected = blur(reconstruction, sigma)
    noise = np.sqrt(np.clip(expected, 0, None) * gain + model.read_noise**2) / gain
    return blur((image - expected) / noise, sigma) / np.sqrt(np.sum(gaussian_psf(sigma) ** 2))


def richardson_lucy(image: np.ndarray, sigma: float, iterations: int) -> np.ndarray:
    """Deconvolve (H, W) >= 0 by a Gaussian PSF (Richardson 1972, Lucy 1974); float32.

        estimate <- estimate * PSF^T * (image / (PSF * estimate))

    Starts from the image's mean. Mirrored borders keep the blur self-adjoint, so PSF^T = PSF.
    """
    observed = np.clip(image.astype(np.float64), 0, None)
    tiny = 1e-12 * max(float(observed.max()), 1e-300)
    estimate = np.full_like(observed, max(float(observed.mean()), tiny))
    for _ in range(iterations):
        estimate *= blur(observed / np.maximum(blur(estimate, sigma), tiny), sigma)
    return estimate.astype(np.float32)
