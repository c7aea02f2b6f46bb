"""Retrainings that are killed, and what is left of them: `python benchmarks/deaths.py [--kills 10]`.

A retraining on synthetic cells runs once undisturbed. Then the same one is killed (SIGKILL) at a random
moment, in a fresh project each time, and run again to its end; every second time all processes that it has
started die with it, as when the machine is switched off. For each death is printed where it struck, how many
training steps were done again and how many seconds the death cost.

Exit code 1 unless each time the rerun finishes with weights equal bit for bit to the undisturbed ones, in one
run without a metric logged twice, with one promotion on record, and repeats no more steps than lie between
two checkpoints.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import torch
import yaml
from tqdm import tqdm

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "tests"))
from specimens import WINNING_RECIPE, make_dataset  # noqa: E402

from flows.servers import free_port  # noqa: E402
from flows.settings import PROJECT, Settings  # noqa: E402

TASK, PRESET, FIELDS = "cells", "winning", 30
BAR = re.compile(r"train: +\d+%[^\r]*?(\d+)/(\d+) \[")
"""The progress bar of training, which tells the step."""


@dataclass(frozen=True)
class Outcome:
    """What a finished project holds."""

    verdict: str
    weights: str
    """SHA-256 of the registered weights."""
    runs: tuple[str, ...]
    """Their statuses."""
    promotions: int
    doubles: tuple[str, ...]
    """Metrics that were logged more than once for a step."""


class Project:
    """A folder of its own with data, parameters and, later, runs."""

    def __init__(self, home: Path) -> None:
        self.home, self.told = home, home / "told.txt"
        make_dataset(home / "data" / TASK, task=TASK, fields=FIELDS)
        (home / "pyproject.toml").write_text(f'[project]\nname = "{PROJECT}"\n', encoding="utf-8")
        params = {"presets": {PRESET: WINNING_RECIPE.as_dict()}, "gate": {"min_fields": 2}, "validation": {}}
        (home / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        dvc = [sys.executable, "-m", "dvc"]
        for command in (["git", "init", "--quiet"], [*dvc, "init", "--quiet"], [*dvc, "add", "-q", "data"]):
            subprocess.run(command, cwd=home, check=True)

    def start(self) -> subprocess.Popen[bytes]:
        """`cvdm retrain`, in the background."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CVDM_")}
        # A neighbour's servers on the usual ports are not this project's: it has none.
        environment |= {
            "CVDM_HOME": str(self.home),
            "CVDM_DEVICE": "cpu",
            "TQDM_MININTERVAL": "0.05",  # as where somebody watches: `steps` reads the bar
            **{f"CVDM_{name}_PORT": str(free_port("127.0.0.1")) for name in ("SERVICE", "PREFECT", "MLFLOW")},
        }
        command = [str(Path(sys.executable).with_name("cvdm")), "retrain", "--task", TASK, "--preset", PRESET]
        with self.told.open("ab") as told:
            return subprocess.Popen(
                [*command, "--json"], cwd=self.home, env=environment, stdout=told, stderr=told
            )

    def steps(self) -> list[int]:
        """Every training step that the bars of all attempts have shown."""
        return [int(step) for step, _ in BAR.findall(self.told.read_text(encoding="utf-8", errors="replace"))]

    def outcome(self) -> Outcome:
        """Read the registry."""
        settings = Settings.read(home=self.home)
        client = mlflow.MlflowClient(settings.tracking_uri)
        runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
        (version,) = client.search_model_versions(f"name = 'cvdm-{TASK}'")
        (weights,) = settings.mlruns_dir.glob("artifacts/**/weights.pt")
        doubles = []
        for run in runs:
            for key in run.data.metrics:
                points = [point.step for point in client.get_metric_history(run.info.run_id, key)]
                if len(points) != len(set(points)) and not key.startswith("system/"):
                    doubles.append(key)
        entries = [json.loads(line) for line in settings.audit_file.read_text().splitlines()]
        return Outcome(
            verdict=version.tags["verdict"],
            weights=hashlib.sha256(weights.read_bytes()).hexdigest(),
            runs=tuple(run.info.status for run in runs),
            promotions=sum(entry["action"] == "promote" for entry in entries),
            doubles=tuple(doubles),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    print(f"{platform.platform()}, torch {torch.__version__}, {os.cpu_count()} cores")
    moments = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(prefix="cvdm-deaths-") as folder:
        whole, seconds = undisturbed(Path(folder) / "undisturbed")
        print(f"undisturbed: {seconds:.0f} s, {whole.verdict}, weights {whole.weights[:12]}")
        bad = 0
        for number in tqdm(range(options.kills), "deaths", file=sys.stderr):
            project = Project(Path(folder) / f"death-{number}")
            faults = died(project, moments.uniform(1, seconds), seconds, whole, family=bool(number % 2))
            bad += bool(faults)
    print(f"{options.kills - bad} of {options.kills} deaths left no trace")
    return 1 if bad else 0


def undisturbed(home: Path) -> tuple[Outcome, float]:
    """The outcome that all others must equal, and how long it takes."""
    project, began = Project(home), time.monotonic()
    finish(project)
    return project.outcome(), time.monotonic() - began


def died(project: Project, moment: float, seconds: float, whole: Outcome, *, family: bool) -> list[str]:
    """Kill a retraining at a moment, run it again, print what that came to; returns what is wrong."""
    process = project.start()
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        kill(process, family=family)
    reached = max(project.steps(), default=0)
    before, began = len(project.steps()), time.monotonic()
    finish(project)
    rerun = time.monotonic() - began
    again = project.steps()[before:]
    repeated = max(reached - min(again), 0) if again and reached else 0
    faults = differences(project.outcome(), whole)
    if repeated > WINNING_RECIPE.training.checkpoint_every:
        faults.append(f"{repeated} steps repeated")
    who = "all processes" if family else "the retraining"
    print(
        f"{who:14} killed at {moment:5.1f} s, step {reached:3d}: {repeated:3d} steps again, "
        f"{moment + rerun - seconds:+6.1f} s in all: {'; '.join(faults) or 'equal'}",
        flush=True,
    )
    return faults


def differences(found: Outcome, whole: Outcome) -> list[str]:
    """In words."""
    faults = [f"logged twice: {', '.join(found.doubles)}"] if found.doubles else []
    for name in ("verdict", "weights", "runs", "promotions"):
        ours, expected = getattr(found, name), getattr(whole, name)
        if ours != expected:
            faults.append(f"{name} {ours} instead of {expected}")
    return faults


def finish(project: Project) -> None:
    """Run it to its end."""
    code = project.start().wait()
    if code != 0:
        raise SystemExit(f"a retraining ended with exit code {code}:\n{project.told.read_text()[-3000:]}")


def kill(process: subprocess.Popen[Any], *, family: bool) -> None:
    """SIGKILL, also for what the process has started."""
    members = psutil.Process(process.pid).children(recursive=True) if family else []
    for one in (*members, psutil.Process(process.pid)):
        one.kill()
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
