"""The story as a test: a promotion, refusals, a death, a rollback, with real servers on the shipped data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_scene_of_the_story_goes_as_expected(tmp_path):
    """What `make story` plays; each scene says what it expected and what happened."""
    environment = os.environ | {"PYTHONPATH": f"{CHECKOUT / 'tests'}:{CHECKOUT / 'benchmarks'}"}
    command = [sys.executable, "-P", "-m", "story", "--folder", str(tmp_path / "story")]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    assert "Every scene went as expected" in ended.stdout and "OTHERWISE" not in ended.stdout
