"""The demo: its claims, its picture, and (slow) the whole of it on a small dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from specimens import make_dataset

from cvdm.dataset import load_dataset
from cvdm.images import write_ome_tiff
from flows.demo import TASK, DemoError, DemoResult, claims, draw, require_champion, require_claims, summary
from flows.processes import addresses
from flows.registry import Registry
from flows.retrain import RetrainResult
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
    write_ome_tiff(reply, channels, pixel_size_um=None, annotations={})
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
    home = project_settings.home
    make_dataset(project_settings.dataset_dir(TASK), task=TASK)
    params = project_settings.params_file.read_text().replace("tiny:", "demo:")
    project_settings.params_file.write_text(params)
    for command in (
        ["git", "init", "--quiet"],
        *([sys.executable, "-m", "dvc", *c] for c in (["init"], ["add", "data"])),
    ):
        subprocess.run(command, cwd=home, check=True)
    registry = Registry.open(project_settings)
    settings = Settings.read(home=home, prefect_port=free_port("127.0.0.1"))
    command = [sys.executable, "-m", "flows.cli", "demo", "--json"]
    documents = []
    for _ in range(2):
        ended = subprocess.run(
            command,
            cwd=home,
            capture_output=True,
            text=True,
            env={**environment(settings), "CVDM_HOME": str(home)},
        )
        documents.append(json.loads(ended.stdout))
        left = [process for process in psutil.process_iter(["cmdline"]) if mentions(process, home)]
        assert left == [] and ended.returncode == 1  # four steps of training keep no promise
    assert registry.models.versions(TASK), documents[0]
    assert documents[0]["error"] == "DemoError" and documents[0] == documents[1]
    assert "Traceback" not in ended.stderr


def environment(settings: Settings) -> dict[str, str]:
    import os

    return {
        **os.environ,
        "CVDM_PREFECT_PORT": str(settings.prefect_port),
        "CVDM_DEVICE": "cpu",
        "PREFECT_HOME": str(settings.mlruns_dir / "prefect"),
    }


def mentions(process: psutil.Process, folder: Path) -> bool:
    """Whether a process works for this project: its log file or database lies there."""
    return any(str(folder) in part for part in process.info["cmdline"] or ())
