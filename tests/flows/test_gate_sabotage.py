"""Sabotaged candidates: each is rejected, with the right reason first; an honest one is not.

A training takes too long here, and is not needed: what a perfect training on sabotaged pairs would learn is
known. On shuffled pairs the input tells nothing, so the posterior is the distribution of all targets; on
blurred targets it is the honest posterior, blurred. Draws of these are scored by the metrics of evaluation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from gate_scores import SOUND
from specimens import cells, noisy

from cvdm.calibration import CalibrationImage, calibrate, floor_from
from cvdm.evaluation import Evaluation
from cvdm.metrics import coverage, crps, fit_intensity, psnr, ssim, target_range
from cvdm.optics import blur
from flows.gate import Background, Decision, GatePolicy, decide

FIELDS, CALIBRATION, DRAWS = 12, 6, 8
Posterior = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""From a clean image (H, W) to draws (K, H, W)."""


def honest(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Right but for a smooth error, of which the draws' spread tells the size."""
    errors = [0.8 * blur(rng.normal(0, 6, clean.shape), 1.5) for _ in range(DRAWS + 1)]
    return clean + errors[0] + np.stack(errors[1:])


def shuffled(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.stack([cells(rng) for _ in range(DRAWS)])


def blurred(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.stack([blur(draw, 2.5) for draw in honest(clean, rng)])


def trained(posterior: Posterior, *, seed: int, too_narrow: float = 1.0) -> Evaluation:
    """The evaluation of a model with this posterior, calibrated on other fields than it is tested on."""
    rng, scene = np.random.default_rng(seed), np.random.default_rng(0)
    images = [cells(scene) for _ in range(CALIBRATION + FIELDS)]
    seen = []
    for number, clean in enumerate(images[:CALIBRATION]):
        draws = posterior(clean, rng)
        seen.append(CalibrationImage(f"c{number}", np.abs(clean - draws.mean(0)), draws.std(0)))
    calibration = calibrate(seen, floor_from([image.std for image in seen]))
    scores: dict[str, dict[str, float]] = {}
    baselines: dict[str, dict[str, dict[str, float]]] = {}
    for number, clean in enumerate(images[CALIBRATION:]):
        draws, low, name = posterior(clean, rng), noisy(clean, scene), f"f{number:02d}"
        mean, span = draws.mean(0), target_range(clean)
        lower, upper = calibration.bounds(mean, draws.std(0) * too_narrow, 1.0)
        own = point(mean, clean) | {
            "crps": float(crps(draws, clean).mean()) / span,
            "coverage": coverage(lower, upper, clean),
            "width": float((upper - lower).mean()) / span,
        }
        for metric, value in own.items():
            scores.setdefault(metric, {})[name] = value
        for baseline, image in (("input", low), ("best-blur", blur(low, 1.5))):
            for metric, value in point(image, clean).items():
                baselines.setdefault(baseline, {}).setdefault(metric, {})[name] = value
    return Evaluation("cells", "test", scores, baselines, DRAWS, 5, "-", seed, 1.0, SOUND)


def point(image: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    fitted, span = fit_intensity(image, clean), target_range(clean)
    return {"psnr_fit": psnr(fitted, clean, span), "ssim_fit": ssim(fitted, clean, span)}


@pytest.fixture(scope="module")
def champion() -> Evaluation:
    return trained(honest, seed=1)


def judged(candidate: Evaluation, champion: Evaluation, learned: tuple[str, ...] = ()) -> Decision:
    return decide(candidate, champion, GatePolicy(), Background(learned=frozenset(learned)))


def test_an_honest_candidate_is_not_rejected(champion):
    """The control: as good as the champion, so nothing fails, and nothing is shown."""
    decision = judged(trained(honest, seed=2), champion)
    assert decision.verdict == "undecided"
    assert not [test.name for test in decision.tests if test.passed is False]


def test_a_training_on_shuffled_pairs_is_rejected_for_its_baselines(champion):
    """It knows what cells look like but not where they are: every baseline is better, PSNR says it first."""
    decision = judged(trained(shuffled, seed=2), champion)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("PSNR against best-blur: -")


def test_a_training_on_blurred_targets_is_rejected_for_its_errors(champion):
    """Its draws are smooth where targets are not: worse than blur or champion, though calibrated."""
    candidate = trained(blurred, seed=2)
    decision = judged(candidate, champion)
    assert decision.verdict == "reject"
    assert next(test for test in decision.tests if test.name == "coverage").passed
    assert decision.reasons[0].startswith(("PSNR against best-blur", "CRPS worse than the champion's"))


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_a_broken_calibration_is_rejected_for_its_coverage(champion, factor):
    """The same draws with bounds that are too narrow or too wide."""
    decision = judged(trained(honest, seed=2, too_narrow=factor), champion)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("the calibrated interval covers")


def test_a_candidate_judged_on_leaked_fields_is_rejected_for_them(champion):
    """Better than anything, because it has seen two of the fields."""
    candidate = trained(honest, seed=2)
    for field in candidate.metrics["crps"]:
        candidate.metrics["crps"][field] *= 0.2
        candidate.metrics["psnr_fit"][field] += 5
    assert judged(candidate, champion).verdict == "promote"
    decision = judged(candidate, champion, ("f03", "f07", "g01"))
    assert decision.verdict == "reject"
    assert decision.reasons[0] == "trained on fields that it is tested on: f03, f07"
