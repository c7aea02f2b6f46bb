"""`python -m cvdm` from prepare to reconstruct, in an environment that holds the core packages alone."""

import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from packaging.requirements import Requirement
from specimens import cells, make_dataset

from cvdm.checkpoint import load_checkpoint
from cvdm.dataset import load_dataset
from cvdm.params import load_recipe
from cvdm.training import train as training_steps
from cvdm.training_state import read_state

ROOT = Path(__file__).parents[2]
DATA, MODEL = ("--data", "data/test-cells"), ("--checkpoint", "models/test-cells")
PARAMS = """\
presets:
  tiny:
    model: {mean: {width: 4, levels: 2, stem: 2}, denoiser: {width: 4, levels: 2}, schedule: {width: 4}}
    training: {steps: 4, batch: 2, patch: 16, warmup: 1, validate_every: 2, checkpoint_every: 1}
    sampling: {samples: 2, steps: 2}
"""


def core_distributions():
    """The core requirements of pyproject.toml and all that they require."""
    found, waiting = set(), ["cvdm-platform"]
    while waiting:
        name = waiting.pop()
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name.lower() not in found:
                found.add(requirement.name.lower())
                waiting.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def core_only(tmp_path_factory):
    """A folder of packages like a fresh environment's after `pip install .` without extras."""
    site = tmp_path_factory.mktemp("site")
    for name in core_distributions():
        for file in distribution(name).files or []:
            top = site / file.parts[0]
            if file.parts[0] not in ("..", "__pycache__") and not top.exists():
                top.symlink_to(distribution(name).locate_file(file.parts[0]))
    (site / "cvdm").symlink_to(ROOT / "cvdm")
    return site


@pytest.fixture(scope="module")
def run(core_only):
    def run(*arguments, code=0, folder=None):
        command = [sys.executable, "-S", "-m", "cvdm", *map(str, arguments)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(core_only)}
        folder = folder or core_only
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    make_dataset(folder / "data" / "test-cells", size=64)
    (folder / "params.yaml").write_text(PARAMS)
    run("train", "--data", "data/test-cells", "--preset", "tiny", "-o", "models/test-cells", folder=folder)
    return folder


def test_the_environment_really_lacks_the_platform(core_only):
    """None of tracker, orchestrator, server and validation suite can be imported there."""
    for tool in ("mlflow", "prefect", "bentoml", "great_expectations", "dvc", "pydantic"):
        command = [sys.executable, "-S", "-c", f"import {tool}"]
        done = subprocess.run(command, env={"PYTHONPATH": str(core_only)}, capture_output=True)
        assert b"ModuleNotFoundError" in done.stderr, tool


def test_prepare_writes_the_manifest(run, trained):
    """Splits by field and the digest, in one JSON file."""
    run("prepare", "--data", "data/test-cells", "-o", "prepared/manifest.json", folder=trained)
    manifest = json.loads((trained / "prepared/manifest.json").read_text())
    fields = [field for split in manifest["fields"].values() for field in split]
    assert manifest["pairs"] == len(fields) == len(set(fields)) == 12


def test_evaluate_prints_one_json_document(run, trained):
    """Standard output is the documented JSON and nothing else; the bar goes to standard error."""
    done = run(
        "evaluate", "--checkpoint", "models/test-cells", "--data", "data/test-cells", "--json", folder=trained
    )
    document = json.loads(done.stdout)
    assert document["split"] == "test" and document["metrics"]["psnr"]["per_field"]
    assert "100%" in done.stderr


def test_reconstruct_writes_the_four_channels(run, trained):
    """An odd-sized 16-bit image comes back with names, size and identical pixels for identical requests."""
    image = (cells(np.random.default_rng(0), 64)[:61, :47] * 1).astype(np.uint16)
    tifffile.imwrite(trained / "in.tif", image)
    for output in ("a.ome.tif", "b.ome.tif"):
        run(
            *("reconstruct", "--checkpoint", "models/test-cells", "in.tif", "-o", output),
            *("--samples", 3, "--steps", 2, "--seed", 5, "--tile", 32),
            folder=trained,
        )
    with tifffile.TiffFile(trained / "a.ome.tif") as file:
        assert file.is_ome and file.asarray().shape == (4, 61, 47) and file.asarray().dtype == np.float32
        channels = ("reconstruction", "uncertainty_std", "lower", "upper")
        assert all(name in file.ome_metadata for name in channels)
    assert np.array_equal(tifffile.imread(trained / "a.ome.tif"), tifffile.imread(trained / "b.ome.tif"))


def test_reconstruct_says_what_speaks_against_an_image(run, trained):
    """On standard error, beside the result."""
    noise = np.random.default_rng(0).integers(0, 400, (64, 64)).astype(np.uint16)
    tifffile.imwrite(trained / "noise.tif", noise)
    done = run(
        *("reconstruct", "--checkpoint", "models/test-cells", "noise.tif", "-o", "noise.ome.tif"),
        folder=trained,
    )
    assert "Doubtful: Expected" in done.stderr and "noise.tif" in done.stderr
    assert (trained / "noise.ome.tif").is_file()


@pytest.mark.parametrize(
    ("arguments", "clue"),
    [
        (("train", "--data", "nowhere", "--preset", "tiny", "-o", "m"), "nowhere"),
        (("train", *DATA, "--preset", "huge", "-o", "m"), "presets tiny"),
        (("train", *DATA, "--preset", "tiny", "-o", "models/test-cells"), "Choose another"),
        (("reconstruct", "--checkpoint", "data", "in.tif", "-o", "o.tif"), "model.json"),
        (("reconstruct", *MODEL, "params.yaml", "-o", "o.tif"), "TIFF"),
        (("reconstruct", *MODEL, "none.tif", "-o", "o.tif"), "none.tif"),
        (("reconstruct", *MODEL, "in.tif", "-o", "o.tif", "--samples", 1), "at least 2"),
        (("reconstruct", *MODEL, "none.tif", "-o", "params.yaml"), "none.tif"),
        (("evaluate", *MODEL, "--data", "prepared"), "card.yaml"),
        (("train", *DATA, "--params", "data", "--preset", "tiny", "-o", "m"), "readable YAML"),
    ],
)
def test_a_mistake_is_one_paragraph(run, trained, arguments, clue):
    """Exit code 1, what was expected and what to do, no traceback, nothing half-written."""
    (trained / "prepared").mkdir(exist_ok=True)
    tifffile.imwrite(trained / "in.tif", np.zeros((32, 32), np.uint16) + 7)
    before = sorted(trained.iterdir())
    done = run(*arguments, code=1, folder=trained)
    assert "Expected" in done.stderr and clue in done.stderr and "Traceback" not in done.stderr
    assert sorted(trained.iterdir()) == before


def test_resume_goes_on_and_never_begins(run, trained):
    """Without a state it is refused; with one, the result is the uninterrupted training's, bit for bit."""
    train = ("train", "--data", "data/test-cells", "--preset", "tiny", "--resume", "--state")
    refused = run(*train, "no-state.pt", "-o", "never", code=1, folder=trained)
    assert "no-state.pt" in refused.stderr and "--resume" in refused.stderr
    dataset, recipe = load_dataset(trained / "data/test-cells"), load_recipe(trained / "params.yaml", "tiny")
    begun = training_steps(dataset, recipe, state_path=trained / "state.pt")
    next(begun), next(begun)
    begun.close()
    assert read_state(trained / "state.pt")["step"] < recipe.training.steps
    run(*train, "state.pt", "-o", "resumed", folder=trained)
    whole, resumed = (load_checkpoint(trained / name).model for name in ("models/test-cells", "resumed"))
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_unknown_parameters_are_refused_by_name(run, trained):
    """A misspelt key of params.yaml stops the training before it starts."""
    (trained / "bad.yaml").write_text("presets: {tiny: {training: {setps: 4}}}")
    done = run(
        *("train", "--data", "data/test-cells", "--params", "bad.yaml", "--preset", "tiny", "-o", "m"),
        code=1,
        folder=trained,
    )
    assert "setps" in done.stderr and "steps" in done.stderr
