"""`cvdm demo`: from the data in this repository to a reconstruction with its uncertainty.

    dvc pull -> retrain (validate, train, evaluate, gate, promote) -> service -> one held-out image over HTTP

Writes demo/reconstruction.ome.tif, demo/picture.png and demo/summary.json and checks its own claims. Run
again, it continues an interrupted training or finishes at once. What it starts it stops.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvdm.dataset import Pair, load_dataset
from cvdm.errors import CvdmError
from cvdm.storage import replacing
from flows.launch import launch
from flows.processes import Address, address_table, addresses, running_service
from flows.restore import restore_at_once
from flows.servers import free_port
from flows.settings import Settings
from flows.version import pull_base, pull_data

if TYPE_CHECKING:  # prefect and mlflow take seconds to import
    from flows.earlier import RetrainResult

TASK, PRESET, SEED = "fmd-confocal-nuclei", "demo", 0
FOLDER = "demo"
COVERAGE = (0.87, 0.93)
"""Where the coverage of the calibrated 90 % interval must lie on test fields."""
COLUMNS = {"PSNR (dB)": "psnr_fit", "SSIM": "ssim_fit", "CRPS": "crps"}
LABELS = {
    "input": "input as it is",
    "best-blur": "best Gaussian blur",
    "regression-mean": "regression mean",
    "constant-interval": "the same, one spread",
}


class DemoError(CvdmError):
    """The demo ran, but what it claims does not hold."""


@dataclass(frozen=True)
class Claim:
    """One thing that the demo promises, with the numbers behind it."""

    claim: str
    holds: bool
    value: float
    against: str


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to."""

    retraining: RetrainResult
    pair: str
    """The held-out image that was restored."""
    provenance: dict[str, str]
    """What the service said about its answer."""
    claims: tuple[Claim, ...]
    files: tuple[str, ...]
    seconds: float
    addresses: tuple[Address, ...]
    """Where things are once `cvdm up` runs."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.retraining.as_json(),
            "coverage": self.retraining.metrics["coverage"],
            "image": self.pair,
            "service": self.provenance,
            "claims": [asdict(claim) for claim in self.claims],
            "files": list(self.files),
            "demo_seconds": self.seconds,
        }


def run_demo(settings: Settings, say: Callable[[str], None]) -> DemoResult:
    """Do all of it; `say` gets a line before each part. Raises CvdmError."""
    began = time.monotonic()
    settings.prepare_environment()
    folder = settings.home / FOLDER
    say("[1/4] data and base model: from the DVC remote inside this repository")
    pull_data(settings)
    pull_base(settings, TASK)
    say(f"[2/4] model: validate, fine-tune the base, evaluate, gate, promote ({TASK}, preset {PRESET})")
    result = launch(settings, TASK, PRESET)
    require_champion(settings, result)
    say("[3/4] service: start it and send it a test image that no training has seen")
    pair = load_dataset(settings.dataset_dir(TASK)).split("test")[0]
    output = folder / "reconstruction.ome.tif"
    with running_service(settings, free_port(settings.host)) as url:
        provenance = restore_at_once(pair.low, output, url, {"task": TASK, "seed": SEED})
    say("[4/4] picture and summary")
    draw(pair, output, folder / "picture.png", provenance)
    files = tuple(f"{FOLDER}/{name}" for name in ("reconstruction.ome.tif", "picture.png", "summary.json"))
    seconds = round(time.monotonic() - began, 1)
    done = DemoResult(
        result, pair.name, provenance, claims(result), files, seconds, addresses(settings, models=False)
    )
    with replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(done.as_json(), indent=2) + "\n", encoding="utf-8")
    return done


def claims(result: RetrainResult) -> tuple[Claim, ...]:
    """The demo's promises, judged by the means over test fields."""
    found = []
    for baseline in ("input", "best-blur"):
        for title, metric in (("PSNR", "psnr_fit"), ("SSIM", "ssim_fit")):
            ours, theirs = result.metrics[metric], result.baselines[baseline][metric]
            text = f"{title} above {LABELS[baseline]}"
            found.append(Claim(text, ours > theirs, ours, f"{theirs:.4g}"))
    low, high = COVERAGE
    inside = low <= result.metrics["coverage"] <= high
    text = "coverage of the calibrated 90 % interval"
    found.append(Claim(text, inside, result.metrics["coverage"], f"{low} to {high}"))
    return tuple(found)


def require_champion(settings: Settings, result: RetrainResult) -> None:
    """Raise DemoError where the gate has let no model of the task through, now or earlier."""
    from flows.registry import Registry

    if Registry.open(settings).models.champion(TASK) is None:
        raise DemoError(
            "a model good enough to serve",
            f"verdict {result.verdict}: {'; '.join(result.reasons)}",
            f"Train longer with `cvdm retrain --task {TASK} --preset cpu`.",
        )


def require_claims(result: DemoResult) -> None:
    """Raise DemoError that names every claim that does not hold."""
    broken = [f"{c.claim}: {c.value:.4g} against {c.against}" for c in result.claims if not c.holds]
    if broken:
        raise DemoError(
            "the demo's model to keep its promises",
            "; ".join(broken),
            f"See demo/summary.json; train longer with `cvdm retrain --task {TASK} --preset cpu`.",
        )


def draw(pair: Pair, reconstruction: Path, picture: Path, provenance: dict[str, str]) -> None:
    """The picture of one restored image: input, reconstruction, target, error, uncertainty."""
    import tifffile

    from cvdm.images import read_image
    from flows.pictures import image_panel

    mean, std, lower, upper = tifffile.imread(reconstruction)
    low, high = read_image(pair.low).pixels, read_image(pair.high).pixels
    title = f"{TASK}, test image {pair.name}, model version {provenance.get('version', '?')}"
    content = image_panel(low, mean, high, std, title=title, interval=upper - lower)
    with replacing(picture) as temporary:
        temporary.write_bytes(content)


def summary(result: DemoResult) -> str:
    """The demo's last words: scores, verdict, files, and what to do next."""
    ours, lines = result.retraining, []
    lines.append(f"{ours.task}: mean over test fields, after a least-squares intensity fit")
    lines.append(f"  {'':22}" + "".join(f"{title:>11}" for title in COLUMNS))
    rows = {LABELS.get(name, name): scores for name, scores in ours.baselines.items()}
    for name, scores in {**rows, f"CVDM version {ours.version}": ours.metrics}.items():
        lines.append(f"  {name:22}" + "".join(f"{scores[metric]:11.4g}" for metric in COLUMNS.values()))
    lines.append(f"  calibrated 90 % interval covers {ours.metrics['coverage']:.1%} of test pixels")
    lines.append(f"  verdict: {ours.verdict} ({ours.reasons[0]})")
    lines.append(f"  restored: {result.pair} by version {result.provenance.get('version', '?')}")
    lines.append(f"  wrote: {', '.join(result.files)}  ({result.seconds:.0f} s)")
    lines.append("")
    lines.append("Everything that was started is stopped. To keep it running:  .venv/bin/cvdm up")
    lines.append(address_table(result.addresses))
    return "\n".join(lines)
