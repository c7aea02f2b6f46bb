"""Where a candidate's weights start: at random, at the base that is shipped for its task, or at the champion.

The rule, where nobody says it, in this order:

1. The champion learned from these very data: the candidate starts as the champion did, so that a repeated
   request is known as such, and another preset is compared on equal terms.
2. There is a champion, and at most half of the training fields are new to it: from the champion. When
   validation finds that what the new ones show has shifted, from scratch after all.
3. There is no champion, but a base of this task: from the base.
4. Otherwise from scratch.

A model of another size cannot be a start. Nor can one that has learned from a field which is held out now:
its scores there would mean nothing; only a change of the card's split can bring that about.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cvdm.card import SPLITS
from cvdm.errors import ConfigError
from cvdm.fine_tuning import Base, read_base
from flows.job import FROM_SCRATCH, Job, Start

if TYPE_CHECKING:
    from flows.registry import Registry, Version
    from flows.validation.drift import Drift

CHOICES = ("auto", "scratch", "base", "champion")
COPY = "-version-"
"""Between task and number in the name of a champion's copy."""
MOST_NEW = 0.5
"""Share of training fields new to the champion, above which there is more to learn than to keep."""
VALIDATION_REPORT = "validation/report.json"
"""Artifact of a run that holds the table of its data, with each field's split."""


class _Unfit(Exception):
    """A model that cannot be a start, and why."""


def require_choice(asked: str) -> None:
    """Raise ConfigError for a start that is none of CHOICES."""
    if asked not in CHOICES:
        raise ConfigError(f"a start out of {', '.join(CHOICES)}", f"'{asked}'", "Correct --init.")


def choose_start(asked: str, registry: Registry, job: Job) -> Start:
    """The start that was asked for, or by rule for `auto`. Raises ConfigError for one that cannot be."""
    require_choice(asked)
    if asked == "auto":
        return _by_rule(registry, job)
    if asked == "scratch":
        return FROM_SCRATCH
    try:
        if asked == "base":
            return Start("base", "asked for", _shipped_base(job))
        champion = registry.models.champion(job.task)
        if champion is None:
            raise _Unfit("no champion")
        return _from_champion(registry, job, champion, "asked for", by_rule=False)
    except _Unfit as reason:
        raise ConfigError(
            f"a {asked} of {job.task} to start from", str(reason), "Use --init auto or --init scratch."
        ) from reason


def is_champion_copy(folder: str) -> bool:
    """Whether a folder beside those of jobs is the copy of a version to start from."""
    return folder.rpartition(COPY)[2].isdigit()


def unless_shifted(start: Start, drift: Drift | None) -> Start:
    """The start when it is known what the new fields show; another one only where the rule chose."""
    if drift is None or not drift.shifted or not start.by_rule or start.kind != "champion":
        return start
    features = ", ".join(one.feature for one in drift.shifted)
    return Start("scratch", f"new fields differ from what version {start.version} knows in {features}")


def _by_rule(registry: Registry, job: Job) -> Start:
    champion = registry.models.champion(job.task)
    try:
        if champion is None:
            return Start("base", "no champion yet, but a base of this task", _shipped_base(job), by_rule=True)
        serving = registry.models.version(job.task, champion)
        if serving.tags.get("dataset_digest") == job.dataset_digest:
            return _as_champion_did(registry, job, serving)
        return _from_champion(registry, job, champion, None, by_rule=True)
    except _Unfit as reason:
        return Start("scratch", str(reason), by_rule=True)


def _as_champion_did(registry: Registry, job: Job, champion: Version) -> Start:
    """How the champion started, whose data these are."""
    why = f"version {champion.number} learned from these data, and started so"
    kind, digest = champion.tags.get("init", "scratch"), champion.tags.get("init_digest")
    if kind == "scratch":
        return Start("scratch", why, by_rule=True)
    if kind == "champion":
        version = int(champion.tags["init_version"])
        start = Start("champion", why, _champion_base(registry, job, version), version, by_rule=True)
    else:
        start = Start("base", why, _shipped_base(job), by_rule=True)
    if start.base is None or start.base.digest != digest:
        raise _Unfit(f"the {kind} that version {champion.number} started from is another one by now")
    return start


def _from_champion(registry: Registry, job: Job, number: int, why: str | None, *, by_rule: bool) -> Start:
    learned = learned_fields(registry, job.task, number)
    if learned is None:
        raise _Unfit(f"it is not on record what version {number} has learned from")
    _require_unseen(job, learned, f"version {number}")
    training = set(job.dataset.fields("train"))
    new = len(training - learned)
    if by_rule and new > MOST_NEW * len(training):
        raise _Unfit(f"{new} of {len(training)} training fields are new to version {number}")
    why = why or f"{new} of {len(training)} training fields are new to version {number}, the champion"
    return Start("champion", why, _champion_base(registry, job, number), number, by_rule)


def learned_fields(registry: Registry, task: str, number: int) -> set[str] | None:
    """Every field that shaped a version's weights, fine-tunings included; None where a record is missing."""
    learned: set[str] = set()
    version: int | None = number
    while version is not None:
        found = _version(registry, task, version)
        if found is None or not registry.artifacts.holds(found.run_id, VALIDATION_REPORT):
            return None
        table = registry.artifacts.read_json(found.run_id, VALIDATION_REPORT)["table"]
        learned |= {row["field"] for row in table if row["split"] == "train" and row["field"]}
        earlier = found.tags.get("init_version")
        version = int(earlier) if earlier else None
    return learned


def _version(registry: Registry, task: str, number: int) -> Version | None:
    """A version; None for one that was removed from the registry."""
    return next((one for one in registry.models.versions(task) if one.number == number), None)


def _champion_base(registry: Registry, job: Job, number: int) -> Base:
    if _version(registry, job.task, number) is None:
        raise _Unfit(f"version {number} is not in the registry any more")
    copy = job.settings.mlruns_dir / "training" / f"{job.task}{COPY}{number}"
    if not copy.is_dir():
        registry.models.download(job.task, number, copy)
    return _fitting(copy, f"version {number}", job)


def _shipped_base(job: Job) -> Base:
    """models/TASK, which `dvc pull` brings, if it has learned from no field that is held out now."""
    directory = job.settings.home / "models" / job.task
    if not directory.is_dir():
        raise _Unfit(f"neither champion nor base: no models/{job.task}")
    manifest = directory.with_name(f"{job.task}.manifest.json")
    if not manifest.is_file():
        raise _Unfit(f"it is not on record what models/{job.task} has learned from")
    fields = json.loads(manifest.read_text(encoding="utf-8"))["fields"]
    _require_unseen(job, fields["train"], f"models/{job.task}")
    return _fitting(directory, f"the base models/{job.task}", job)


def _fitting(directory: Path, who: str, job: Job) -> Base:
    try:
        return read_base(directory, job.recipe.model)
    except ConfigError as error:
        raise _Unfit(f"{who} is of another size or kind than preset {job.preset} makes") from error


def _require_unseen(job: Job, learned: Iterable[str], who: str) -> None:
    held_out = {field for split in SPLITS if split != "train" for field in job.dataset.fields(split)}
    if seen := sorted(held_out & set(learned)):
        raise _Unfit(f"{who} has learned from fields that are held out now: {', '.join(seen[:5])}")
