"""What the registry holds, for people and programs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvdm.errors import ConfigError, StorageError
from flows.registry import Registry, Version
from flows.settings import Settings

SHOWN = ("psnr_fit", "ssim_fit", "crps", "coverage")
TEST_METRICS = "test/"


def known_task(task: str, registry: Registry, settings: Settings) -> str:
    """The task, if there are data or a model of it. Raises ConfigError that lists the tasks there are."""
    tasks = sorted({*settings.known_tasks(), *registry.models.tasks()})
    if task not in tasks:
        raise ConfigError(
            f"a task: {', '.join(tasks) or 'none is here yet'}",
            f"'{task}'",
            "Correct its spelling, or bring its data with `cvdm ingest`.",
        )
    return task


def catalogue(registry: Registry, tasks: tuple[str, ...]) -> list[dict[str, Any]]:
    """Every version of some tasks, newest first, with its test metrics."""
    return [_entry(registry, version) for task in tasks for version in registry.models.versions(task)]


def catalogue_table(entries: list[dict[str, Any]]) -> str:
    """The versions as a table."""
    if not entries:
        return "No model yet. Train one with `cvdm retrain --task TASK`."
    titles = f"{'task':24} {'version':>7}  {'alias':10} {'verdict':10} "
    lines = [titles + "".join(f"{name:>10}" for name in SHOWN) + "  created"]
    for entry in entries:
        metrics = entry["metrics"]
        cells = "".join(f"{metrics[name]:10.4g}" if name in metrics else f"{'-':>10}" for name in SHOWN)
        alias, verdict = ",".join(entry["aliases"]) or "-", entry["verdict"] or "-"
        lines.append(
            f"{entry['task']:24} {entry['version']:>7}  {alias:10} {verdict:10} {cells}  {entry['created']}"
        )
    return "\n".join(lines)


def export(registry: Registry, task: str, which: str, target: Path) -> Version:
    """Write the checkpoint directory of a version to `target`, which must be missing or empty."""
    version = registry.models.version(task, which)
    if target.exists():
        if not target.is_dir() or any(target.iterdir()):
            raise StorageError(
                f"an empty or new folder at {target}", "something in it", "Choose another folder or empty it."
            )
        target.rmdir()
    registry.models.download(task, version.number, target)
    return version


def _entry(registry: Registry, version: Version) -> dict[str, Any]:
    metrics = registry.runs.metrics(version.run_id) if version.run_id else {}
    return {
        "task": version.task,
        "version": version.number,
        "aliases": list(version.aliases),
        "verdict": version.tags.get("verdict"),
        "reasons": version.tags.get("reasons"),
        "decided_by": version.tags.get("decided_by"),
        "gate_verdict": version.tags.get("gate_verdict"),
        "created": datetime.fromtimestamp(version.created / 1000, UTC).isoformat(timespec="seconds"),
        "run_id": version.run_id,
        "dataset_digest": version.tags.get("dataset_digest"),
        "git_commit": version.tags.get("git_commit"),
        "metrics": {
            name.removeprefix(TEST_METRICS): value
            for name, value in sorted(metrics.items())
            if name.startswith(TEST_METRICS)
        },
    }
