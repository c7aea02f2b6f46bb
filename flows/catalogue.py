"""What the registry holds, for people and programs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cvdm.errors import ConfigError, StorageError
from flows.registry import CHAMPION, Registry, Version
from flows.settings import Settings
from flows.shadow import ShadowSummary, shadow_summary
from flows.usage import KWH

SHOWN = ("psnr_fit", "ssim_fit", "crps", "coverage")
TEST_METRICS = "test/"
INTERVAL_GUARANTEE = "interval_guarantee"
"""Tag on a version: what its interval promises, in words (`cvdm.calibration`)."""

BESIDE_A_PERSON = {None: "before the gate had judged it", "undecided": "where the gate was undecided"}
"""How a person's decision stands to the gate's."""


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


def catalogue(registry: Registry, tasks: tuple[str, ...], settings: Settings) -> list[dict[str, Any]]:
    """Every version of some tasks, newest first, with its test metrics, and with what a service saw of it."""
    return [entry for task in tasks for entry in _entries(registry, task, settings)]


def catalogue_table(entries: list[dict[str, Any]]) -> str:
    """The versions as a table."""
    if not entries:
        return "No model yet. Train one with `cvdm retrain --task TASK`."
    titles = f"{'task':24} {'version':>7}  {'alias':10} {'gate':10} "
    lines = [titles + "".join(f"{name:>10}" for name in SHOWN) + "  created"]
    for entry in entries:
        metrics = entry["metrics"]
        cells = "".join(f"{metrics[name]:10.4g}" if name in metrics else f"{'-':>10}" for name in SHOWN)
        alias, verdict = ",".join(entry["aliases"]) or "-", entry["gate_verdict"] or "-"
        lines.append(
            f"{entry['task']:24} {entry['version']:>7}  {alias:10} {verdict:10} {cells}  {entry['created']}"
        )
    lines += [
        f"{entry['task']} version {entry['version']}: {entry['verdict']} by {entry['decided_by']}, "
        f"{BESIDE_A_PERSON.get(entry['gate_verdict'], 'against the gate')}: {entry['reasons']}"
        for entry in entries
        if entry["gate_verdict"] != entry["verdict"]
    ]
    lines += [
        f"{entry['task']} version {entry['version']}: rolled back {entry['rolled_back']}"
        for entry in entries
        if entry["rolled_back"]
    ]
    seen = [entry for entry in entries if entry["shadow"] is not None]
    lines += [f"{entry['task']} version {entry['version']}: {entry['shadow']['words']}" for entry in seen]
    serving = [entry for entry in entries if entry["aliases"] and entry[INTERVAL_GUARANTEE]]
    lines += [
        f"{entry['task']} version {entry['version']}, interval: {entry[INTERVAL_GUARANTEE]}"
        for entry in serving
    ]
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


def kwh_by_promotion(versions: Sequence[Version], spent: Sequence[tuple[int, float]]) -> dict[int, float]:
    """For each promoted version, the kWh of all runs since the promotion before it, rejected ones included.

    spent: for each run its start, in ms since 1970, and its kWh. A run counts once, by its start: for the
    first promotion after it. A version that was promoted again counts by its last promotion.
    """
    promotions = sorted(
        (datetime.fromisoformat(version.tags["decided_at"]).timestamp() * 1000, version.number)
        for version in versions
        if version.tags.get("verdict") == "promote" and "decided_at" in version.tags
    )
    moments = [moment for moment, _ in promotions]
    found = {number: 0.0 for _, number in promotions}
    for start, kwh in spent:
        position = bisect_left(moments, start)
        if position < len(promotions):
            found[promotions[position][1]] += kwh
    return found


def _entries(registry: Registry, task: str, settings: Settings) -> list[dict[str, Any]]:
    versions = registry.models.versions(task)
    champion = next((one for one in versions if CHAMPION in one.aliases), None)
    promoted = kwh_by_promotion(versions, registry.runs.spent(task, KWH))
    return [
        _entry(registry, version, promoted.get(version.number), _seen(version, champion, settings))
        for version in versions
    ]


def _seen(version: Version, champion: Version | None, settings: Settings) -> ShadowSummary | None:
    """What a service saw of a version in the champion's shadow."""
    return None if champion is None else shadow_summary(settings.jobs_dir, champion.run_id, version.run_id)


def _entry(
    registry: Registry, version: Version, kwh_to_promotion: float | None, shadow: ShadowSummary | None
) -> dict[str, Any]:
    metrics = registry.runs.metrics(version.run_id) if version.run_id else {}
    return {
        "task": version.task,
        "version": version.number,
        "aliases": list(version.aliases),
        "verdict": version.tags.get("verdict"),
        "reasons": version.tags.get("reasons"),
        "decided_by": version.tags.get("decided_by"),
        "gate_verdict": version.tags.get("gate_verdict"),
        "rolled_back": version.tags.get("rolled_back") or None,
        "created": datetime.fromtimestamp(version.created / 1000, UTC).isoformat(timespec="seconds"),
        "run_id": version.run_id,
        "dataset_digest": version.tags.get("dataset_digest"),
        "data_version": version.tags.get("data_version"),
        "git_commit": version.tags.get("git_commit"),
        INTERVAL_GUARANTEE: version.tags.get(INTERVAL_GUARANTEE),
        "kwh": metrics.get(KWH),
        "kwh_to_promotion": kwh_to_promotion,
        "shadow": None if shadow is None else {**asdict(shadow), "words": shadow.words()},
        "metrics": {
            name.removeprefix(TEST_METRICS): value
            for name, value in sorted(metrics.items())
            if name.startswith(TEST_METRICS)
        },
    }
