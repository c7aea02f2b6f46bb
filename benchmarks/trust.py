"""What the uncertainty is worth: by kind of pixels, on unfamiliar images, on planted and erased structures.

    python benchmarks/trust.py [--tasks fmd-confocal-nuclei biosr-microtubules] [--fields 2] [--crop 256]

Measures the models in models/ on the test fields of data/: busiest crops, drawn as models were calibrated.
Four parts: (1) coverage, width, error and AUSE by brightness and edges; (2) other images than trained for,
acquired anew from the targets: the other task's, defocused ones, ones with fewer photons; does the interval
widen as the error grows, and what else would have told; (3) spots and a filament planted into inputs, and a
bright structure erased; (4) simulated: calibration sets of few fields, with the correction and without it.

Writes benchmarks/reports/trust.json and trust.txt, and pictures docs/trust-*.png. Some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm
from tqdm import tqdm
from trust_pictures import draw_all

from cvdm.calibration import CalibrationImage, calibrate
from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.dataset import Dataset, load_dataset
from cvdm.errors import ImageError
from cvdm.field_of_view import FieldOfView
from cvdm.inspection.focus import measure_focus
from cvdm.metrics import coverage, crps
from cvdm.observation import Observation
from cvdm.optics import blur, forward_residual, simulate_widefield
from cvdm.patches import ImagePair, read_pair
from cvdm.posterior import Estimate, conclude, dispersed, require_familiar
from cvdm.probes import detection_of, mean_answers, probed
from cvdm.probing import Detection
from cvdm.stratified import Judged, stratified
from cvdm.validation import busiest_crop

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("fmd-confocal-nuclei", "biosr-microtubules")
DEFOCUS = (0.0, 1.0, 2.0, 4.0)
"""Sigma of the blur in pixels; 0 is the reference of part 2."""
FEWER = (4, 16)
"""Photons are divided by these."""
SIMULATED_FIELDS, SIMULATED_BETWEEN, SIMULATED_SETS = (1, 2, 3, 5, 10), 0.4, 120


@dataclass(frozen=True)
class Place:
    """A model and a test image, and how light comes to be in its input."""

    checkpoint: Checkpoint
    image: ImagePair
    detection: Detection
    dataset: Dataset

    def acquired(self, target: np.ndarray, fewer: int = 1, seed: int = 0) -> np.ndarray:
        """An input made from a target by the card's forward model, or by the photon noise of the pair."""
        optics = self.dataset.card.forward_model
        if optics is not None:
            dimmer = replace(optics, photons=optics.photons / fewer)
            return np.clip(np.rint(simulate_widefield(target, dimmer, seed)), 0, 65535).astype(np.float32)
        gain = self.detection.units_per_photon * fewer
        photons = np.random.default_rng(seed).poisson(np.clip(target, 0, None) / gain)
        return (gain * photons).astype(np.float32)

    def restored(self, low: np.ndarray) -> Estimate:
        """As the model was calibrated."""
        return self._drawn(low)[0]

    def judged(self) -> Judged:
        """The image as it is, with its scores per pixel."""
        found, draws = self._drawn(self.image.low)
        scores = crps(draws, self.image.high, antithetic=True)
        return Judged(found.mean, found.std, found.lower, found.upper, scores, self.image.high)

    @torch.inference_mode()
    def _drawn(self, low: np.ndarray) -> tuple[Estimate, np.ndarray]:
        model = self.checkpoint
        view = FieldOfView(model.model, model.normalisation, Observation.of(low), model.recipe.sampling)
        draws = np.stack(list(view.draws()))
        return conclude(model, view, draws), dispersed(model, view.sampling, draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--fields", type=int, default=2, help="test fields of parts 2 and 3")
    parser.add_argument("--crop", type=int, default=256, help="edge of their crops")
    parser.add_argument("--strata-crop", type=int, default=512, help="edge of the crops of part 1")
    parser.add_argument("--report", type=Path, default=ROOT / "benchmarks" / "reports" / "trust")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    result: dict = {"strata": {}, "unfamiliar": {}, "probes": {}, "guarantee": {}, "calibration": simulated()}
    for task in options.tasks:
        other = next(name for name in TASKS if name != task)
        result["guarantee"][task] = load_checkpoint(ROOT / "models" / task).calibration.guarantee()
        result["strata"][task] = strata(places(task, options.strata_crop), task)
        few = places(task, options.crop)[: options.fields]
        strange = [place.image for place in places(other, options.crop)[: options.fields]]
        result["unfamiliar"][task] = unfamiliar(few, strange, task)
        result["probes"][task] = probes(few, task)
    text = as_text(result)
    options.report.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    options.report.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    draw_all(result, options.pictures)
    print(text)


def places(task: str, edge: int) -> list[Place]:
    """The first capture of each test field, cut to its busiest crop."""
    checkpoint, dataset = load_checkpoint(ROOT / "models" / task), load_dataset(ROOT / "data" / task)
    first = {pair.field: pair for pair in reversed(dataset.split("test"))}
    found = []
    for _, pair in sorted(first.items()):
        whole = read_pair(pair)
        detection = detection_of(whole, dataset.card.forward_model)
        found.append(Place(checkpoint, busiest_crop(whole, edge), detection, dataset))
    return found


def strata(chosen: list[Place], task: str) -> dict[str, dict[str, dict[str, float]]]:
    """Part 1, by stratum, metric and field."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for place in tqdm(chosen, desc=f"{task}: kinds of pixels", unit="image"):
        judged = place.judged()
        whole = coverage(judged.lower, judged.upper, judged.target)
        scores = {"all": {"coverage": whole}} | stratified(judged)
        for stratum, values in scores.items():
            for metric, value in values.items():
                found.setdefault(stratum, {}).setdefault(metric, {})[place.image.field] = value
    return found


def unfamiliar(chosen: list[Place], strange: list[ImagePair], task: str) -> dict[str, dict[str, object]]:
    """Part 2, by condition: means over images of width and error in intensity ranges, coverage, and hints."""
    rows: dict[str, list[dict[str, float]]] = {}
    refused = 0
    for place, other in tqdm(
        zip(chosen, strange, strict=True), total=len(chosen), desc=f"{task}: unfamiliar"
    ):
        refused += not familiar(place, other.low)
        for name, low, truth in conditions(place, other):
            rows.setdefault(name, []).append(look(place, low, truth))
    means = {name: {k: _mean([row[k] for row in found]) for k in found[0]} for name, found in rows.items()}
    return means | {"other modality as it is": {"refused": refused, "of": len(chosen)}}


def conditions(place: Place, other: ImagePair) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, input and truth of each."""
    target = place.image.high
    yield "measured input", place.image.low, target
    for sigma in DEFOCUS:
        blurred = blur(target, sigma) if sigma else target
        yield f"defocus {sigma:g} px", place.acquired(blurred), target
    for fewer in FEWER:
        yield f"photons / {fewer}", place.acquired(target, fewer), target
    low, high = (np.percentile(other.low, at) for at in (1, 99.8))
    model = place.checkpoint.normalisation
    scale = (model.high - model.low) / (high - low)
    matched = [((pixels - low) * scale + model.low).astype(np.float32) for pixels in (other.low, other.high)]
    yield "other modality", matched[0], matched[1]


def familiar(place: Place, low: np.ndarray) -> bool:
    """Whether the model takes an image at all."""
    try:
        require_familiar(place.checkpoint, Observation.of(low))
    except ImageError:
        return False
    return True


def look(place: Place, low: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """One reconstruction: how wide, how wrong, and what other signs there are."""
    found, model, seen = place.restored(low), place.checkpoint, Observation.of(low)
    span = 2 * model.normalisation.scale_of(low).half_range
    focus, optics, stretch = measure_focus(low), model.record.forward_model, model.stretch(seen)
    reach = (found.upper - found.mean) / stretch
    row = {
        "width": float((found.upper - found.lower).mean()) / span,
        "error": float(np.abs(found.mean - truth).mean()) / span,
        "coverage": coverage(found.lower, found.upper, truth),
        "unstretched": coverage(found.mean - reach, found.mean + reach, truth),
        "novelty": model.novelty(seen) or float("nan"),
        "stretch": stretch,
        "focus_db": focus.focus_db if focus else float("nan"),
    }
    return row | ({"residual": forward_residual(found.mean, low, optics)} if optics else {})


def probes(chosen: list[Place], task: str) -> dict[str, dict[str, float]]:
    """Part 3: means over images of `cvdm.probing.Answer`."""
    found = {
        place.image.field: probed(place.image, place.detection, place.restored)
        for place in tqdm(chosen, desc=f"{task}: probes")
    }
    return {name: asdict(answer) for name, answer in mean_answers(found).items()}


def simulated() -> list[dict[str, float]]:
    """Part 4: fields whose errors differ by a log-normal factor, many calibration sets of few of them."""
    edge, rng = 32, np.random.default_rng(0)
    ideal = norm.ppf((1 + (np.arange(edge**2) + 0.5) / edge**2) / 2).reshape(edge, edge)
    new = np.exp(SIMULATED_BETWEEN * norm.ppf((np.arange(999) + 0.5) / 999))
    rows = []
    for fields in tqdm(SIMULATED_FIELDS, desc="simulate", unit="number of fields"):
        covered: dict[str, list[float]] = {"plain": [], "corrected": [], "widening": []}
        for _ in range(SIMULATED_SETS):
            factors = np.exp(rng.normal(0, SIMULATED_BETWEEN, fields))
            images = [CalibrationImage(str(i), f * ideal, np.ones_like(ideal)) for i, f in enumerate(factors)]
            found = calibrate(images, 1e-9)
            widening = found.widening or 1.0
            for name, reach in (("plain", found.quantile / widening), ("corrected", found.quantile)):
                covered[name].append(float(np.mean(2 * norm.cdf(reach / new) - 1)))
            covered["widening"].append(widening)
        error = float(np.std(covered["corrected"]) / np.sqrt(SIMULATED_SETS))
        means = {name: _mean(values) for name, values in covered.items()}
        rows.append({"fields": fields, **means, "error": error, "guaranteed": found.guaranteed_level})
    return rows


def as_text(result: dict) -> str:
    """All numbers, for people."""
    lines = []
    for task, guarantee in result["guarantee"].items():
        lines += [f"{task}: {guarantee}", ""]
        for part in ("strata", "unfamiliar", "probes"):
            rows = result[part][task]
            columns = list(dict.fromkeys(name for row in rows.values() for name in row))
            lines.append(f"{part:28}" + "".join(f"{name:>15}" for name in columns))
            for name, row in rows.items():
                lines.append(f"{name:28}" + "".join(_cell(row.get(column)) for column in columns))
            lines.append("")
    columns = list(result["calibration"][0])
    lines.append(f"calibration sets simulated, fields differ by a factor exp(N(0, {SIMULATED_BETWEEN}))")
    lines.append("".join(f"{name:>12}" for name in columns))
    lines += ["".join(f"{row[name]:12.4g}" for name in columns) for row in result["calibration"]]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = _mean(list(value.values()))
    return f"{'-':>15}" if value is None else f"{value:15.4g}"


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


if __name__ == "__main__":
    main()
