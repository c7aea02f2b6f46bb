"""Versions of the data: list them, compare two. Git keeps the records, DVC the content.

A version is named by (the beginning of) its md5, by its tag, or by a commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import yaml

from cvdm.dataset import FOLDER_SUFFIXES, SUFFIXES
from flows.settings import Settings
from flows.version import (
    LISTED,
    VersionError,
    changed_files,
    data_version,
    is_held,
    record_file,
    require_in_project,
    run_dvc,
)
from flows.version_control import SHORT, git, is_checkout

LOST_MARK = "  (lost: neither DVC's cache nor its remote has it)"
FEWEST = 4
"""Characters of a md5 or commit that may stand for it."""


@dataclass(frozen=True)
class DataVersion:
    """One state of the data folder that git has a record of."""

    version: str
    """The md5 that data.dvc holds."""
    commit: str
    date: str
    """ISO 8601, of the commit."""
    message: str
    tags: tuple[str, ...]
    files: int
    megabytes: float
    present: bool
    """Whether data.dvc holds it now; of equal versions the newest."""
    held: bool | None = None
    """Whether this machine has its list of files; None where only a remote elsewhere could tell."""


@dataclass(frozen=True)
class Difference:
    """What changed from one version to another, by task: names of pairs and of other files."""

    before: str
    after: str
    added: dict[str, tuple[str, ...]]
    removed: dict[str, tuple[str, ...]]
    changed: dict[str, tuple[str, ...]]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def summary(self) -> str:
        """The difference for people."""
        lines = [f"{self.before[:8]} -> {self.after[:8]}"]
        for word in ("added", "removed", "changed"):
            for task, names in getattr(self, word).items():
                lines.append(f"  {task}: {len(names)} {word}: {', '.join(names)}")
        return "\n".join(lines if len(lines) > 1 else [*lines, "  no difference"])


def versions(settings: Settings) -> tuple[DataVersion, ...]:
    """Every version, the newest first. Raises VersionError, GitError, ConfigError."""
    require_in_project(settings)
    if not is_checkout(settings.home):
        raise VersionError(
            "a git checkout, which keeps the versions' records",
            f"none at {settings.home}",
            "Clone the project.",
        )
    record = record_file(settings).relative_to(settings.home).as_posix()
    now = data_version(settings)
    log = git(settings.home, "log", "--format=%H%x1f%cI%x1f%s", "--", record)
    found: list[DataVersion] = []
    for line in filter(None, log.splitlines()):
        commit, date, message = line.split("\x1f")
        content = _content(settings, commit, record)
        if content is None:  # the commit removed the record
            continue
        tags = git(settings.home, "tag", "--list", "data/*", "--points-at", commit).split()
        found.append(
            DataVersion(
                version=str(content["md5"]),
                commit=commit,
                date=date,
                message=message,
                tags=tuple(tags),
                files=int(content.get("nfiles", 0)),
                megabytes=round(int(content.get("size", 0)) / 1e6, 3),
                present=content["md5"] == now and not any(one.present for one in found),
            )
        )
    held = is_held(settings, {one.version for one in found})
    return tuple(replace(one, held=held[one.version]) for one in found)


def history_table(found: Sequence[DataVersion]) -> str:
    """The versions for people; the present one is marked."""
    head = f"  {'version':8}  {'date':25}  {'commit':8}  {'files':>6}  {'MB':>9}  message"
    lines = [
        f"{'*' if one.present else ' '} {one.version[:8]:8}  {one.date:25}  {one.commit[:8]:8}  "
        f"{one.files:>6}  {one.megabytes:>9.1f}  {', '.join(one.tags) or one.message}"
        f"{LOST_MARK if one.held is False else ''}"
        for one in found
    ]
    return "\n".join([head, *lines])


def difference(settings: Settings, before: str | None, after: str | None) -> Difference:
    """From one version (the one before, when left out) to another (the present one). Raises VersionError."""
    found = versions(settings)
    new = named_version(found, after) if after is not None else present_version(found, settings)
    old = named_version(found, before) if before is not None else _one_before(found, new)
    was, now = (files_of_version(settings, one) for one in (old, new))
    return Difference(
        before=old.version,
        after=new.version,
        added=_by_task(path for path in now if path not in was),
        removed=_by_task(path for path in was if path not in now),
        changed=_by_task(path for path in now if was.get(path, now[path]) != now[path]),
    )


def _content(settings: Settings, commit: str, record: str) -> dict[str, Any] | None:
    """What the record said at a commit; None where it was not there."""
    listed = git(settings.home, "ls-tree", "--name-only", commit, "--", record)
    if not listed:
        return None
    content: dict[str, Any] = yaml.safe_load(git(settings.home, "show", f"{commit}:{record}"))["outs"][0]
    return content


def named_version(found: Sequence[DataVersion], which: str) -> DataVersion:
    """The newest commit of the version that a name fits. Raises VersionError with what there is."""
    fitting = [
        one
        for one in found
        if which in one.tags
        or (len(which) >= FEWEST and any(full.startswith(which) for full in (one.version, one.commit)))
    ]
    if len({one.version for one in fitting}) == 1:
        return fitting[0]
    known = ", ".join(one.tags[0] if one.tags else one.version[:8] for one in fitting or found[:10])
    raise VersionError(
        "one version of the data", f"'{which}'", f"There are: {known or 'none'}. `cvdm data log` lists them."
    )


def require_version(settings: Settings, which: str) -> None:
    """Raise VersionError unless the data folder holds this version, no more and no less."""
    wanted, now = named_version(versions(settings), which), data_version(settings)
    if wanted.version != now:
        raise VersionError(
            f"data of version {which}",
            f"version {str(now)[:8]}",
            f"`cvdm data checkout {which}` brings it back, as a commit.",
        )
    if changed := [name for names in changed_files(settings).values() for name in names]:
        raise VersionError(
            f"data of version {which}",
            f"{len(changed)} files that are missing or changed: {', '.join(changed[:LISTED])}",
            "Ingest what is new; `dvc pull` brings back what is missing.",
        )


def present_version(found: Sequence[DataVersion], settings: Settings) -> DataVersion:
    """The version that data.dvc holds. Raises VersionError where no commit holds it."""
    for one in found:
        if one.present:
            return one
    raise VersionError(
        "data.dvc as a commit holds it", f"{data_version(settings)}, not committed", "Commit data.dvc first."
    )


def _one_before(found: Sequence[DataVersion], new: DataVersion) -> DataVersion:
    """The newest version that is older than this one and differs from it."""
    older = found[found.index(new) + 1 :]
    for one in older:
        if one.version != new.version:
            return one
    raise VersionError("an earlier version", "none", "Name two versions of `cvdm data log`.")


def files_of_version(settings: Settings, one: DataVersion) -> dict[str, str]:
    """The md5 of every file of a version by its path in the data folder.

    By `dvc list`, which asks the remote for what the cache has forgotten; `dvc diff` says nothing then.
    Raises VersionError where both have lost it.
    """
    if one.held is False:
        raise lost(one, "git's record of it alone")
    folder = settings.data_dir.relative_to(settings.home).as_posix()
    query = ("list", ".", folder, "--rev", one.commit, "--recursive", "--json", "--show-hash")
    listed = run_dvc(settings, *query)
    return {str(entry["path"]): str(entry["md5"]) for entry in json.loads(listed)}


def lost(one: DataVersion, actual: str) -> VersionError:
    """The error of a version that git knows, but neither cache nor remote."""
    return VersionError(
        f"the content of version {one.version[:SHORT]} in DVC's cache or remote",
        actual,
        "Run `dvc push` where that version was made, or choose another one of `cvdm data log`.",
    )


def _by_task(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names of pairs (once for both images) and other files, by task."""
    found: dict[str, set[str]] = {}
    for path in paths:
        parts = PurePosixPath(path).parts
        if len(parts) < 2:
            continue
        name = _pair_name(parts[2]) if parts[1] in ("low", "high") and len(parts) > 2 else "/".join(parts[1:])
        found.setdefault(parts[0], set()).add(name)
    return {task: tuple(sorted(names)) for task, names in sorted(found.items())}


def _pair_name(file: str) -> str:
    suffix = next((s for s in (*SUFFIXES, *FOLDER_SUFFIXES) if file.lower().endswith(s)), "")
    return file[: len(file) - len(suffix)]
