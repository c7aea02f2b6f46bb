"""The whole path against an oracle: blurred, noisy images of a Gaussian specimen, where all is known.

Specimen y ~ N(0, S), acquired as x = H y + noise, all stationary on a torus, so that Fourier modes are
independent: the posterior has mean W x with W = S H / (S H^2 + noise^2) and variance noise^2 S / (S H^2 +
noise^2) per mode. The networks are replaced by the exact ones: mu = W x, sigma = the posterior's std, and
E[z | z_t] for the *correlated* residual z. Everything else is the code that serves: field of view, border,
solver, moments, calibration, bounds.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm, t
from specimens import make_checkpoint

from cvdm.calibration import Calibration, CalibrationImage, calibrate
from cvdm.config import SamplingConfig, ScheduleConfig
from cvdm.field_of_view import BORDER
from cvdm.model import Condition
from cvdm.normalisation import Normalisation
from cvdm.posterior import posterior_of
from cvdm.schedule import build_schedule

EDGE = 128
TORUS = EDGE + 2 * BORDER
NOISE, BLUR, GRAIN = 0.5, 1.2, 1.5
"""Standard deviation of the noise, and of blur and specimen in pixels."""
INSIDE = np.s_[BORDER:-BORDER, BORDER:-BORDER]
"""Of the image, where its mirrored surroundings are out of the filter's reach."""
DRAWS = 32
LEVEL = 0.9


def modes():
    """Power of the specimen S and transfer of the optics H (TORUS, TORUS); the specimen's variance is 1."""
    frequency = np.hypot(np.fft.fftfreq(TORUS)[:, None], np.fft.fftfreq(TORUS)[None])
    power = np.exp(-2 * (np.pi * 2 * GRAIN * frequency) ** 2 / 2)
    return power / power.mean(), np.exp(-2 * (np.pi * BLUR * frequency) ** 2)


POWER, TRANSFER = modes()
WIENER = POWER * TRANSFER / (POWER * TRANSFER**2 + NOISE**2)
POSTERIOR = NOISE**2 * POWER / (POWER * TRANSFER**2 + NOISE**2)
STD = float(np.sqrt(POSTERIOR.mean()))


def filtered(image, gain):
    return np.fft.ifft2(np.fft.fft2(image) * gain).real


class ExactNetworks(torch.nn.Module):
    """What an infinitely well trained model would answer."""

    stride = 1
    inputs = 1

    def __init__(self):
        super().__init__()
        self.schedule = build_schedule(ScheduleConfig(kind="cosine", log_snr_clean=9.0, log_snr_noise=-9.0))
        self.wiener = torch.nn.Parameter(torch.from_numpy(WIENER).float(), requires_grad=False)
        self.residual = torch.from_numpy(POSTERIOR / STD**2)

    def receptive_radius(self):
        return BORDER

    def condition(self, x):
        mean = torch.fft.ifft2(torch.fft.fft2(x) * self.wiener).real
        return Condition(x, mean, torch.full_like(x, STD), self.schedule.paths(x))

    def velocity(self, z_t, point, features):
        gamma, noise = point.gamma.double().mean(), point.noise_power.double().mean()
        gain = gamma.sqrt() * self.residual / (gamma * self.residual + noise)
        signal = torch.fft.ifft2(torch.fft.fft2(z_t.double()) * gain).real
        return ((gamma.sqrt() * z_t - signal) / noise.sqrt()).float()


def acquire(seed):
    """A specimen and its image, both cut out of the torus; and the posterior mean, known where cut."""
    rng = np.random.default_rng(seed)
    specimen = filtered(rng.normal(size=(TORUS, TORUS)), np.sqrt(POWER))
    image = filtered(specimen, TRANSFER) + rng.normal(0, NOISE, specimen.shape)
    mean = filtered(image, WIENER)
    return tuple(part[BORDER:-BORDER, BORDER:-BORDER] for part in (specimen, image, mean))


def exact_checkpoint(calibration: Calibration | None = None):
    sampling = SamplingConfig(samples=DRAWS, steps=60, solver="angular-euler", tile=512)
    whole = make_checkpoint()
    return replace(
        whole,
        model=ExactNetworks(),
        normalisation=Normalisation("dataset", -1.0, 1.0),
        recipe=replace(whole.recipe, sampling=sampling),
        calibration=calibration or whole.calibration,
    )


@pytest.fixture(scope="module")
def reconstructed():
    specimen, image, mean = acquire(0)
    return specimen, mean, posterior_of(exact_checkpoint(), image.astype(np.float32)).estimate()


def test_mean_and_spread_are_the_known_posterior(reconstructed):
    """Mean of every pixel; variance of all pixels together, and of each within its sampling error."""
    _, mean, found = reconstructed
    # mirrored draws cancel in a linear problem: what is left is rounding and the filter's tail
    assert np.abs(found.mean - mean)[INSIDE].max() < 0.02 * STD
    assert np.mean(found.std[INSIDE] ** 2) == pytest.approx(STD**2, rel=0.05)
    pairs = DRAWS // 2  # independent values behind a pixel's variance
    scatter = np.std(found.std[INSIDE] ** 2) / STD**2
    assert scatter == pytest.approx(np.sqrt(2 / pairs), rel=0.1)


def test_the_gaussian_interval_covers_what_it_says(reconstructed):
    """mean -+ z std covers the specimen as often as Student's law says for that many draws."""
    specimen, _, found = reconstructed
    reach = norm.ppf((1 + LEVEL) / 2) * found.std
    covered = np.mean(np.abs(specimen - found.mean)[INSIDE] <= reach[INSIDE])
    expected = 2 * t.cdf(norm.ppf((1 + LEVEL) / 2), DRAWS // 2) - 1
    assert covered == pytest.approx(expected, abs=0.025)  # some hundred independent patches of specimen
    assert np.mean(np.abs(specimen - found.mean)[INSIDE] <= 0.5 * reach[INSIDE]) < 0.7


def test_calibrated_bounds_cover_another_specimen(reconstructed):
    """Fitted on one specimen, the bounds hold 90 % of the next, by the factor of Student's law."""
    specimen, _, found = reconstructed
    seen = CalibrationImage("f0", np.abs(specimen - found.mean)[INSIDE], found.std[INSIDE])
    calibration = calibrate([seen], 1e-6, LEVEL)
    assert calibration.quantile == pytest.approx(t.ppf((1 + LEVEL) / 2, DRAWS // 2), rel=0.05)
    other, image, _ = acquire(1)
    bounds = posterior_of(exact_checkpoint(calibration), image.astype(np.float32)).estimate()
    covered = (bounds.lower <= other) & (other <= bounds.upper)
    assert covered[INSIDE].mean() == pytest.approx(LEVEL, abs=0.025)
