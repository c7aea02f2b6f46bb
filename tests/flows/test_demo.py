"""The demo: its claims, its picture, and (slow) the whole of it on a small dataset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import yaml
from specimens import TINY_RECIPE, WINNING_RECIPE, make_dataset

from cvdm.config import Recipe
from cvdm.dataset import load_dataset
from cvdm.images import write_ome_tiff
from cvdm.reading import Metadata
from flows.demo import TASK, DemoError, DemoResult, claims, draw, require_champion, require_claims, summary
from flows.earlier import RetrainResult
from flows.processes import addresses
from flows.registry import Registry
from flows.servers import free_port
from flows.settings import Settings


def result(*, psnr=37.0, ssim=0.97, coverage=0.9, verdict="promote") -> RetrainResult:
    def scores(psnr, ssim):
        return {"psnr_fit": psnr, "ssim_fit": ssim, "crps": 0.01}

    return RetrainResult(
        task=TASK,
        run_id="0" * 32,
        version=3,
        verdict=verdict,
        reasons=("first model, better than every baseline",),
        metrics={**scores(psnr, ssim), "coverage": coverage},
        baselines={
            "input": scores(29.0, 0.7),
            "best-blur": scores(36.0, 0.94),
            "regression-mean": scores(37.2, 0.97),
        },
        seconds=1.0,
    )


def done(retraining: RetrainResult, settings: Settings) -> DemoResult:
    shown = addresses(settings, models=False)
    return DemoResult(
        retraining, "fov01_cap00", {"version": "3"}, claims(retraining), ("demo/a",), 2.0, shown
    )


def test_a_good_model_keeps_every_promise(tmp_path):
    """Better than input and best blur in PSNR and SSIM, and calibrated: five claims hold."""
    good = done(result(), Settings.read(home=tmp_path))
    assert len(good.claims) == 5 and all(claim.holds for claim in good.claims)
    require_claims(good)
    json.dumps(good.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"psnr": 35.9}, "PSNR above best Gaussian blur: 35.9 against 36"),
        ({"ssim": 0.9}, "SSIM above best Gaussian blur"),
        ({"coverage": 0.80}, "coverage"),
        ({"coverage": 0.96}, "coverage"),
        ({"psnr": float("nan")}, "PSNR above input"),
    ],
)
def test_a_broken_promise_fails_the_demo_by_name(tmp_path, change, named):
    """The message has the numbers and what to do."""
    with pytest.raises(DemoError, match=named):
        require_claims(done(result(**change), Settings.read(home=tmp_path)))


def test_the_summary_shows_baselines_candidate_verdict_and_the_next_command(tmp_path):
    """Everything that a newcomer needs to judge and go on."""
    text = summary(done(result(), Settings.read(home=tmp_path)))
    for part in (
        "best Gaussian blur",
        "CVDM version 3",
        "90.0% of test pixels",
        "promote",
        ".venv/bin/cvdm up",
    ):
        assert part in text
    assert "http://127.0.0.1:3000" in text and "http://127.0.0.1:5000" in text


def test_the_picture_is_drawn_from_what_the_service_sent(cells_dataset, tmp_path):
    """A PNG from the four channels of the reply and the pair on disk."""
    pair = load_dataset(cells_dataset).split("test")[0]
    target = tifffile.imread(pair.high).astype(np.float32)
    reply = tmp_path / "reconstruction.ome.tif"
    names = ("reconstruction", "uncertainty_std", "lower", "upper")
    channels = dict(zip(names, (target, np.ones_like(target), target - 2, target + 2), strict=True))
    write_ome_tiff(reply, [channels], metadata=Metadata(), annotations={})
    draw(pair, reply, tmp_path / "demo" / "picture.png", {"version": "3"})
    assert (tmp_path / "demo" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_champion_the_demo_says_why(project_settings):
    """A rejected first model is not worth starting a service for."""
    with pytest.raises(DemoError, match="verdict reject"):
        require_champion(project_settings, result(verdict="reject"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_demo_whose_model_is_rejected_ends_with_its_reasons(project_settings):
    """A model of four steps is refused: twice the same message, exit code 1, nothing left running."""
    make_dataset(project_settings.dataset_dir(TASK), task=TASK)
    versioned_project(project_settings, TINY_RECIPE)
    documents = [run_demo_command(project_settings, exit_code=1) for _ in range(2)]
    assert Registry.open(project_settings).models.versions(TASK), documents[0]
    assert documents[0]["error"] == "DemoError" and documents[0] == documents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_demo_whose_model_wins_serves_it_and_a_second_one_finishes_at_once(project_settings):
    """A real training, real servers, a real upload: promoted, pictured, and not trained twice."""
    make_dataset(project_settings.dataset_dir(TASK), task=TASK, fields=30)
    versioned_project(project_settings, WINNING_RECIPE)
    first, again = (run_demo_command(project_settings, exit_code=0) for _ in range(2))
    assert first["verdict"] == "promote" and all(claim["holds"] for claim in first["claims"])
    assert first["service"]["version"] == "1" and not first["repeated"]
    assert again == first | {"repeated": True, "demo_seconds": again["demo_seconds"]}
    assert Registry.open(project_settings).models.champion(TASK) == 1
    folder = project_settings.home / "demo"
    assert sorted(path.name for path in folder.iterdir()) == [
        Path(name).name for name in sorted(first["files"])
    ]
    assert tifffile.imread(folder / "reconstruction.ome.tif").shape == (4, 96, 96)


def versioned_project(settings: Settings, demo: Recipe) -> None:
    """Give the project git, DVC and a `demo` preset."""
    params = yaml.safe_load(settings.params_file.read_text()) | {"presets": {"demo": demo.as_dict()}}
    settings.params_file.write_text(yaml.safe_dump(params))
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["git", "init", "--quiet"], [*dvc, "init"], [*dvc, "add", "data"]):
        subprocess.run(command, cwd=settings.home, check=True)


def run_demo_command(settings: Settings, *, exit_code: int) -> dict[str, Any]:
    """The JSON document of `cvdm demo`, which must leave no process and no traceback behind."""
    environment = os.environ | {
        "CVDM_HOME": str(settings.home),
        "CVDM_DEVICE": "cpu",
        "CVDM_PREFECT_PORT": str(free_port("127.0.0.1")),
        "PREFECT_HOME": str(settings.mlruns_dir / "prefect"),
    }
    command = [sys.executable, "-m", "flows.cli", "demo", "--json"]
    ended = subprocess.run(command, cwd=settings.home, capture_output=True, text=True, env=environment)
    assert ended.returncode == exit_code and "Traceback" not in ended.stderr, ended.stderr
    left = [p for p in psutil.process_iter(["cmdline"]) if mentions(p, settings.home)]
    assert left == []
    return json.loads(ended.stdout)


def mentions(process: psutil.Process, folder: Path) -> bool:
    """Whether a process works for this project: its log file or database lies there."""
    return any(str(folder) in part for part in process.info["cmdline"] or ())
