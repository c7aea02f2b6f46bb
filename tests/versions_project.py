"""A checkout with DVC to version data in, its two tools, and what is looked at afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess

from cvdm.dataset import load_dataset, split_of
from flows import version
from flows.settings import PROJECT
from flows.version import data_version

TASK = "test-cells"


def git(home, *arguments):
    done = subprocess.run(["git", "-C", str(home), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def dvc(home, *arguments):
    version.dvc_process([*arguments, "--quiet"], home, os.environ).check_returncode()


def empty_project(home):
    """A checkout with DVC, without data."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "pyproject.toml").write_text(f'[project]\nname = "{PROJECT}"\n')
    (home / "params.yaml").write_text("presets: {smoke: {}}\nvalidation: {}\n")
    (home / ".gitignore").write_text("/data\n/mlruns\n/quarantine\n")
    git(home, "init", "--quiet")
    git(home, "config", "user.name", "A Tester")
    git(home, "config", "user.email", "tester@example.org")
    dvc(home, "init")
    # As in this project: else each command starts a second one, which asks the network for a newer DVC.
    dvc(home, "config", "core.check_update", "false")
    dvc(home, "remote", "add", "--default", "embedded", ".data-remote")
    git(home, "add", "--all")
    git(home, "commit", "--quiet", "--message", "Start")
    return home


def files_of(*roots):
    """Every file below some folders, by its path within them, with its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def splits_in(root):
    """By field, its split as training will see it."""
    dataset = load_dataset(root)
    return {pair.field: split_of(pair.field, dataset.card) for pair in dataset.pairs}


def state(settings):
    """Everything that a refused ingest must leave as it was."""
    files = {path: path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file()}
    return files, data_version(settings), git(settings.home, "rev-parse", "HEAD")


def spoil(batch):
    """Damage two of the pairs of a batch, one of them in both ways that a pair can be damaged."""
    (batch / "low" / "f12_c0.tif").write_bytes(b"II*\0 cut off")
    shutil.copy(batch / "low" / "f13_c0.tif", batch / "low" / "f14_c0.tif")  # without a target
    return batch
