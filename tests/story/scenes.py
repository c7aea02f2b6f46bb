"""The scenes, in their order; each is a function that plays one and says what happened.

The microscope is the one behind `biosr-microtubules`: eleven cells, of which ten come on the first day and
one on the second. Five are test cells, the fewest with which a better model can be told from a lucky one. The
base is the network that is shipped for nuclei, which has never seen a microtubule.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import tifffile
import yaml
from planted_defects import moved, saturated

from flows.aliases import standing
from flows.deployment import ServiceDeployment
from flows.promote import NotTakenOverError, promote
from flows.train import PROGRESS_METRIC
from story.world import World, kill, require, wait_until

SHIPPED, BASE_OF, TASK = "biosr-microtubules", "fmd-confocal-nuclei", "microtubules"
LATER = "cell011"
"""Comes on the second day; a training cell."""
SPLIT = {"seed": 4, "train": 0.3, "validation": 0.1, "calibration": 0.15, "test": 0.45}
"""Deals the eleven cells 3 / 1 / 2 / 5."""
STEPS = {"batch": 8, "warmup": 20, "ema": 0.99, "validate_every": 250, "checkpoint_every": 25}
SAMPLING = {"samples": 4, "steps": 3}
PRESETS = {
    # A fine-tuning takes a quarter of these steps.
    "story": {"training": {"steps": 2000, **STEPS}, "sampling": SAMPLING},
    "sabotaged": {"training": {"steps": 100, **STEPS}, "sampling": SAMPLING},
}
RESUME_FROM = 150
"""The step after which the fine-tuning is killed."""


@dataclass(frozen=True)
class Scene:
    title: str
    expected: str
    play: Callable[[World], str]


def open_task(world: World) -> str:
    """A new task from a folder of pairs and a card; its base is another task's."""
    first = world.arrivals / "day-1"
    cells = sorted(path.stem for path in shipped(world, "low").iterdir())
    arrive(world, first, [name for name in cells if name != LATER])
    card = yaml.safe_load((world.home / "data" / SHIPPED / "card.yaml").read_text(encoding="utf-8"))
    (first / "card.yaml").write_text(yaml.safe_dump(card | {"task": TASK, "split": SPLIT}), encoding="utf-8")
    models = world.home / "models"
    shutil.copytree(models / BASE_OF, models / TASK)
    shutil.copy(models / f"{BASE_OF}.manifest.json", models / f"{TASK}.manifest.json")
    told = ingest(world, first, card=first / "card.yaml")
    tests = sum(split == "test" for split in told["splits"].values())
    require((len(told["added"]), tests) == (10, 5), f"{len(told['added'])} pairs in, {tests} test cells")
    return f"10 pairs in, {tests} of them test cells; data version {told['data_version'][:8]}"


def first_champion(world: World) -> str:
    """From the base; with nobody to beat but the baselines."""
    told = world.cvdm("retrain", "--task", TASK, "--preset", "story", "--init", "base")
    require((told["verdict"], told["init"]) == ("promote", "base"), verdict(told))
    require(world.serving(TASK) == told["version"], f"the service serves {world.serving(TASK)}")
    return f"{scores(told)}; the service serves version {told['version']}"


def refuse_bad_batch(world: World) -> str:
    """Three cells with a fault each, and a file that ends too early."""
    bad = world.arrivals / "bad-day"
    low, high = (shipped(world, part) for part in ("low", "high"))
    planted = {
        "saturated": lambda: (saturated(read(low / "cell001.tif"), 0.1), read(high / "cell001.tif")),
        "shift-px": lambda: (read(low / "cell002.tif"), moved(read(high / "cell002.tif"), shift=(6, -4))),
        "snr-gain-db": lambda: (read(high / "cell003.tif"), read(low / "cell003.tif")),
    }
    for number, images in enumerate(planted.values()):
        for part, image in zip(("low", "high"), images(), strict=True):
            write(bad / part / f"cell{101 + number}.tif", image)
    for part in ("low", "high"):
        (bad / part / "cell104.tif").write_bytes((shipped(world, part) / f"{LATER}.tif").read_bytes()[:9000])
    before = world.cvdm("data", "log")["versions"][0]["version"]
    told = ingest(world, bad, code=1)
    found = {(finding["name"], finding["check"]) for finding in told["rejected"]}
    for number, check in enumerate(planted):
        require((f"cell{101 + number}", check) in found, f"no {check} of cell{101 + number} among {found}")
    refused = {name for name, _ in found}
    require(refused == {f"cell{number}" for number in (101, 102, 103, 104)}, f"refused {sorted(refused)}")
    after = world.cvdm("data", "log")["versions"][0]["version"]
    require(after == before, f"the data changed from {before} to {after}")
    kept = sorted(path.stem for path in Path(told["quarantine"]).glob("low/*.tif"))
    require(kept == sorted(refused), f"quarantine holds {kept}")
    return f"{len(refused)} of 4 refused ({', '.join(planted)}, truncated), all kept in quarantine"


def take_good_batch(world: World) -> str:
    """One more training cell; no field changes its split."""
    batch = world.arrivals / "day-2"
    arrive(world, batch, [LATER])
    told = ingest(world, batch)
    require(told["splits"] == {LATER: "train"}, f"splits {told['splits']}")
    again = ingest(world, batch)
    require(again["known"] == 1 and not again["added"], f"the same batch again added {again['added']}")
    return f"{LATER} joins the training cells as {told['tag']}; the same batch again changes nothing"


def fine_tune_through_a_death(world: World) -> str:
    """Killed in the middle, run again: the same run goes on, and its model is better."""
    command = ("retrain", "--task", TASK, "--preset", "story")
    process = world.start(*command)
    job = wait_for_checkpoint(world, process)
    kill(process)
    killed = json.loads((job / "run.json").read_text(encoding="utf-8"))["run_id"]
    told = world.cvdm(*command)
    require(told["run_id"] == killed, f"run {told['run_id']} instead of {killed}, which was killed")
    require((told["verdict"], told["init"]) == ("promote", "champion"), verdict(told))
    require(world.serving(TASK) == told["version"], f"the service serves {world.serving(TASK)}")
    client = mlflow.MlflowClient(world.settings().tracking_uri)
    steps = [point.step for point in client.get_metric_history(killed, PROGRESS_METRIC)]
    require(len(steps) == len(set(steps)), f"steps were logged twice: {sorted(steps)}")
    pages = {entry.path for entry in client.list_artifacts(killed, "gate")}
    require("gate/report.html" in pages, f"no page of the gate among {sorted(pages)}")
    runs = client.search_runs([client.get_run(killed).info.experiment_id])
    require(len(runs) == 2, f"{len(runs)} runs instead of two")
    return f"{scores(told)}; killed and resumed as one run; {told['reasons'][1]}"


def refuse_repetition(world: World) -> str:
    """Nothing is new: no data, no parameter, no code."""
    told = world.cvdm("retrain", "--task", TASK, "--preset", "story")
    require(told["repeated"], "it was trained again")
    return f"version {told['version']} is the answer at once"


def reject_sabotage(world: World) -> str:
    """A candidate that learned from shuffled pairs."""
    before = world.cvdm("models", "--task", TASK)["versions"]
    told = world.answer([sys.executable, "-P", "-m", "story.sabotage", TASK, "sabotaged"])
    require(told["verdict"] == "reject", verdict(told))
    now = {one["version"]: one["aliases"] for one in world.cvdm("models", "--task", TASK)["versions"]}
    for one in before:
        require(now[one["version"]] == one["aliases"], f"the aliases are {now}")
    return f"version {told['version']} rejected: {told['reasons'][0]}"


def refuse_spoiled_files(world: World) -> str:
    """Registered files whose checksums hold, but whose weights are another model's."""
    registry = world.registry()
    champion, scratch = registry.models.champion(TASK), world.root / "spoiled"
    spoiled = registry.models.download(TASK, champion, scratch / "champion")
    other = registry.models.download(TASK, 1, scratch / "other")
    exchange_weights(spoiled, other)
    run = registry.runs.start(TASK, "spoiled files", params={}, tags={})
    version = registry.models.register(TASK, run, spoiled, {})
    registry.runs.finish(run.run_id)
    told = world.cvdm("promote", "--task", TASK, "--version", str(version), "--reason", "a hurry", code=1)
    require("golden" in json.dumps(told), f"the reason does not name the golden pair: {told}")
    require(world.serving(TASK) == champion, f"the service serves {world.serving(TASK)}")
    return f"version {version} does not replay its golden pair; version {champion} serves on"


def send_aliases_back(world: World) -> str:
    """The service stops while it should take a version over: who served before serves again."""
    registry = world.registry()
    before = standing(registry, TASK)

    with world.service_frozen() as freeze:

        class Freezing(ServiceDeployment):
            def _is_known(self, *arguments: Any) -> bool:
                known = super()._is_known(*arguments)
                freeze()
                return known

        way = Freezing(world.settings(deploy_window_seconds=5), registry)
        try:
            promote(registry, TASK, before.previous, reasons=["back"], by="story", deployment=way)
        except NotTakenOverError as error:
            why = str(error)
        else:
            require(False, "a service that hangs was taken for one that serves")
    require(standing(registry, TASK) == before, f"the aliases are {standing(registry, TASK)}")
    wait_until(
        lambda: world.serving(TASK) == before.champion, 60, f"the service to serve {before.champion} again"
    )
    tagged = registry.models.version(TASK, before.previous).tags.get("reverted", "")
    require("5 s" in tagged, f"version {before.previous} is tagged '{tagged}'")
    return f"aliases back to version {before.champion}: {why.splitlines()[0]}"


def roll_back(world: World) -> str:
    """By a person, and forward again, with reasons on record."""
    told = world.cvdm("rollback", "--task", TASK, "--reason", "a doubt")
    first = told["champion"]
    wait_until(lambda: world.serving(TASK) == first, 60, f"the service to serve version {first}")
    told = world.cvdm(
        "promote", "--task", TASK, "--version", str(told["previous"]), "--reason", "doubt settled"
    )
    require(world.serving(TASK) == told["champion"], f"the service serves {world.serving(TASK)}")
    return f"version {first} served, then version {told['champion']} again"


def verify_audit(world: World) -> str:
    """The record of all decisions is whole, and an edit of a copy of it is noticed."""
    told = world.cvdm("audit", "verify")
    log = world.settings().audit_file
    original = log.read_text(encoding="utf-8")
    require("a doubt" in original, "the rollback's reason is not on record")
    try:
        log.write_text(original.replace("a doubt", "a whim"), encoding="utf-8")
        found = world.cvdm("audit", "verify", code=1)
    finally:
        log.write_text(original, encoding="utf-8")
    versions = world.cvdm("models", "--task", TASK)["versions"]
    whole = f"{told['entries']} decisions on {len(versions)} versions are whole"
    return f"{whole}; an edited reason is found: {found['problems'][0]}"


SCENES = (
    Scene(
        "A task is opened with ten cells", "10 pairs pass validation, 5 of them become test cells", open_task
    ),
    Scene(
        "First champion, fine-tuned from a base for nuclei",
        "promote, and the service takes it over",
        first_champion,
    ),
    Scene(
        "A bad batch",
        "each of 4 pairs refused for its own fault, kept, and the data as they were",
        refuse_bad_batch,
    ),
    Scene("A good batch", "1 pair in, no field changes its split, once only", take_good_batch),
    Scene(
        "Fine-tuning on the new data, killed in the middle",
        "the same run goes on; better than the champion: promote",
        fine_tune_through_a_death,
    ),
    Scene("The same retraining again", "nothing new, so nothing is trained", refuse_repetition),
    Scene("A sabotaged candidate: shuffled pairs", "reject, and no alias moves", reject_sabotage),
    Scene(
        "A promotion of spoiled files",
        "the golden replay fails, the champion serves on",
        refuse_spoiled_files,
    ),
    Scene(
        "A service that does not take over",
        "the aliases go back by themselves, the version is tagged with why",
        send_aliases_back,
    ),
    Scene("Rollback by a person, and back", "the service follows twice", roll_back),
    Scene("The audit log", "whole; an edit is noticed", verify_audit),
)


def arrive(world: World, folder: Path, names: list[str]) -> None:
    """Put pairs of the shipped data into a batch."""
    for part in ("low", "high"):
        (folder / part).mkdir(parents=True)
        for name in names:
            shutil.copy(shipped(world, part) / f"{name}.tif", folder / part)


def ingest(world: World, batch: Path, *, card: Path | None = None, code: int = 0) -> dict[str, Any]:
    extra = ("--card", str(card)) if card else ()
    return world.cvdm("ingest", str(batch), "--task", TASK, "--session", batch.name, *extra, code=code)


def shipped(world: World, part: str) -> Path:
    return world.home / "data" / SHIPPED / part


def read(path: Path) -> np.ndarray:
    return tifffile.imread(path).astype(np.float64)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.round(np.clip(image, 0, 65535)).astype(np.uint16))


def wait_for_checkpoint(world: World, process: Any) -> Path:
    """The job's folder, as soon as a checkpoint of step RESUME_FROM or later lies there."""
    from cvdm.training_state import read_state

    states = world.settings().mlruns_dir / "training"

    def far_enough() -> Path | None:
        require(process.poll() is None, f"the retraining ended with exit code {process.returncode}")
        return next(
            (path.parent for path in states.glob("*/state.pt") if read_state(path)["step"] >= RESUME_FROM),
            None,
        )

    wait_until(far_enough, 600, f"a checkpoint of step {RESUME_FROM}")
    found = far_enough()
    require(found, "the checkpoint vanished")
    return Path(str(found))


def exchange_weights(ours: Path, theirs: Path) -> None:
    """Another model's weights with checksums that hold."""
    shutil.copy(theirs / "weights.pt", ours / "weights.pt")
    facts, other = (json.loads((one / "model.json").read_text(encoding="utf-8")) for one in (ours, theirs))
    facts["files"]["weights.pt"] = other["files"]["weights.pt"]
    (ours / "model.json").write_text(json.dumps(facts), encoding="utf-8")


def scores(told: dict[str, Any]) -> str:
    found = told["metrics"]
    return (
        f"version {told['version']} {told['verdict']}: PSNR {found['psnr_fit']:.2f} dB, "
        f"CRPS {found['crps']:.4f}, coverage {found['coverage']:.3f}"
    )


def verdict(told: dict[str, Any]) -> str:
    return f"{told['verdict']} from {told['init']}: {'; '.join(told['reasons'])}"
