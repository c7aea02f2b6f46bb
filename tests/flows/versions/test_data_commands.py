"""The commands on data versions, as a program sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from versions_project import TASK

ROOT = Path(__file__).parents[3]


def cvdm(home, *arguments):
    """Run the command as a process in a project's folder: (exit code, document, standard error)."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments), "--json"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CVDM_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_batch_comes_in_is_listed_and_goes_again(settings, second):
    """Ingest with one bad pair ends with 1, again with 0; then log, diff and checkout."""
    home = settings.home
    (second / "low" / "f12_c0.tif").write_bytes(b"")
    code, first, _ = cvdm(home, "ingest", second, "--task", TASK, "--session", "day-2")
    assert code == 1 and first["added"] == ["f13_c0"] and not first["ok"]
    assert [one["name"] for one in first["rejected"]] == ["f12_c0"]
    page = Path(first["page"]).read_text()
    assert "f12_c0" in page and first["rejected"][0]["remedy"] in page
    code, again, _ = cvdm(home, "ingest", second, "--task", TASK, "--session", "day-2")
    assert code == 0 and again["known"] == 1 and again["commit"] is None
    assert "f12_c0" not in Path(again["page"]).read_text()
    assert first["rejected"][0]["remedy"] in (Path(first["quarantine"]) / "page.html").read_text()
    assert again["data_version"] == first["data_version"]
    code, log, _ = cvdm(home, "data", "log")
    assert code == 0 and [one["present"] for one in log["versions"]] == [True, False]
    code, diff, _ = cvdm(home, "data", "diff")
    assert code == 0 and diff["added"] == {TASK: ["f13_c0", "ledger.json"]}
    code, back, _ = cvdm(home, "data", "checkout", log["versions"][1]["version"][:8])
    assert code == 0 and back["version"] == log["versions"][1]["version"] and back["committed_as"]
    assert not (settings.dataset_dir(TASK) / "low" / "f13_c0.tif").exists()
    code, error, _ = cvdm(home, "data", "checkout", "nonsense")
    assert code == 1 and error["error"] == "VersionError"
