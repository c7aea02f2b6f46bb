"""Which versions and training states go for age, and which never do.

A training state goes `keep_states_days` after its run has ended. A version goes when it is older than
`keep_days` and none of these holds it:

    an alias          champion, previous or any other
    a pin             tag `pinned` with any text but an empty one, set in MLflow's page
    the newest        `keep_versions` of its task
    a rollback        the latest `keep_promoted` promoted versions of its task
    a descendant      a version that stays was fine-tuned from it: without it nobody knows which fields that
                      one has learned from, and it could not be fine-tuned any more
    one run           whose version it is, is still RUNNING

Runs stay with metrics, parameters, tags and pictures, data versions stay in DVC's remote: what a removed
version had learned, from what and how well, is still on record, and it can be trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from flows.aliases import alone
from flows.housekeeping.plan import Doomed, Item, Plan
from flows.housekeeping.policy import RetentionPolicy
from flows.promote import PROMOTED_AT
from flows.registry import Registry, Version

PINNED = "pinned"


def plan_retention(registry: Registry, policy: RetentionPolicy, now: datetime | None = None) -> Plan:
    """Look at every version and training state. Raises RegistryError."""
    now = now or datetime.now(UTC)
    runs = registry.cleaning.runs()
    running = frozenset(run.run_id for run in runs if run.status == "RUNNING")
    goes: list[Doomed] = []
    stays: list[Item] = []
    for task in registry.models.tasks():
        versions = registry.models.versions(task)
        kept = reasons_to_stay(versions, policy, running, now)
        for version in versions:
            name = f"{task} {version.number}"
            if version.number in kept:
                stays.append(Item("version", name, kept[version.number]))
                continue
            size = registry.cleaning.version_bytes(version.model_id)
            why = f"older than {policy.keep_days} days, and nothing needs it"
            goes.append(Doomed(Item("version", name, why, size), partial(_remove, registry, version, why)))
    oldest = (now - timedelta(days=policy.keep_states_days)).timestamp() * 1000
    for run in runs:
        if run.status == "RUNNING" or run.ended is None or run.ended > oldest:
            continue
        if size := registry.cleaning.state_bytes(run.run_id):
            why = f"its run has ended more than {policy.keep_states_days} days ago"
            item = Item("training state", f"{run.task} {run.run_id}", why, size)
            goes.append(Doomed(item, partial(registry.cleaning.drop_state, run.run_id)))
    return Plan(tuple(goes), tuple(stays))


def reasons_to_stay(
    versions: Sequence[Version], policy: RetentionPolicy, running: frozenset[str], now: datetime
) -> dict[int, str]:
    """By number, why a version of one task stays; those that are missing may go.

    versions: all of the task, newest first. running: ids of runs that have not ended.
    """
    young = (now - timedelta(days=policy.keep_days)).timestamp() * 1000
    promoted = [one for one in versions if _promoted(one)]
    rollback = {one.number for one in sorted(promoted, key=_promoted, reverse=True)[: policy.keep_promoted]}
    newest = {one.number for one in versions[: policy.keep_versions]}
    found: dict[int, str] = {}
    for one in versions:
        if one.aliases:
            found[one.number] = f"it is {' and '.join(one.aliases)}"
        elif one.tags.get(PINNED):
            found[one.number] = f"pinned: {one.tags[PINNED]}"
        elif one.run_id in running:
            found[one.number] = f"its run {one.run_id} is not finished"
        elif one.number in rollback:
            found[one.number] = f"one of the last {policy.keep_promoted} promoted: a rollback may need it"
        elif one.number in newest:
            found[one.number] = f"one of the newest {policy.keep_versions}"
        elif one.created > young:
            found[one.number] = f"younger than {policy.keep_days} days"
    return found | _ancestors({one.number: one for one in versions}, found)


def _remove(registry: Registry, version: Version, why: str) -> None:
    """Write it into the audit log, then remove the version; a kill in between writes it there again.

    One that was promoted, pinned or given another alias since the look stays.
    """
    task, number = version.task, version.number
    with alone(registry, task):
        now = registry.models.version(task, number)
        if now.aliases or now.tags.get(PINNED):
            return
        registry.audit.append("removed", task=task, version=number, by="housekeeping", reasons=(why,))
        registry.cleaning.delete_version(task, number, version.model_id)


def _ancestors(versions: Mapping[int, Version], kept: Mapping[int, str]) -> dict[int, str]:
    """Versions that kept ones were fine-tuned from, however many steps back."""
    found: dict[int, str] = {}
    for number in kept:
        child = versions[number]
        while (parent := versions.get(int(child.tags.get("init_version") or 0))) is not None:
            if parent.number not in kept:
                found[parent.number] = f"version {child.number} was fine-tuned from it"
            child = parent
    return found


def _promoted(version: Version) -> str:
    """When it last became champion, ISO 8601; empty for one that never did."""
    decided = version.tags.get("decided_at", "") if version.tags.get("verdict") == "promote" else ""
    return version.tags.get(PROMOTED_AT, decided)
