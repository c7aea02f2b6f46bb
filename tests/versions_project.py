"""A checkout with DVC to version data in, and its two tools."""

from __future__ import annotations

import subprocess
import sys

from flows.settings import PROJECT

TASK = "test-cells"


def git(home, *arguments):
    done = subprocess.run(["git", "-C", str(home), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def dvc(home, *arguments):
    subprocess.run([sys.executable, "-m", "dvc", *arguments, "--quiet"], cwd=home, check=True)


def empty_project(home):
    """A checkout with DVC, without data."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "pyproject.toml").write_text(f'[project]\nname = "{PROJECT}"\n')
    (home / "params.yaml").write_text("validation: {}\n")
    (home / ".gitignore").write_text("/data\n/mlruns\n/quarantine\n")
    git(home, "init", "--quiet")
    git(home, "config", "user.name", "A Tester")
    git(home, "config", "user.email", "tester@example.org")
    dvc(home, "init")
    dvc(home, "remote", "add", "--default", "embedded", ".data-remote")
    git(home, "add", "--all")
    git(home, "commit", "--quiet", "--message", "Start")
    return home
