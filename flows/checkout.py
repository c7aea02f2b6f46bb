"""An earlier version of the data comes back, and nothing that no version holds is lost by it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flows.device_lock import all_devices_lock
from flows.history import DataVersion, files_of_version, lost, named_version, present_version, versions
from flows.settings import Settings
from flows.version import (
    VersionError,
    add_to_dvc,
    changed_files,
    find_remote,
    one_ingest_at_a_time,
    record_file,
    run_dvc,
)
from flows.version_control import commit_record, git, is_checkout, require_clean_index

LISTED = 5
"""Files that a message names."""


def checkout(settings: Settings, which: str, *, commit: bool = True) -> tuple[DataVersion, str | None]:
    """Bring a version back; returns it and the commit that records it, None where nothing had to change.

    Refused while the data hold content that no version holds, so that nothing is lost, and while a retraining
    reads them. What is missing in the cache is fetched from the remote before anything is replaced.
    Raises VersionError, GitError, BusyError.
    """
    locks = settings.mlruns_dir / "locks"
    with one_ingest_at_a_time(settings), all_devices_lock(locks, "data checkout"):
        return _checked_out(settings, which, commit=commit)


def _checked_out(settings: Settings, which: str, *, commit: bool) -> tuple[DataVersion, str | None]:
    found = versions(settings)
    wanted = named_version(found, which)
    present_version(found, settings)
    commit = commit and is_checkout(settings.home)
    if commit:
        require_clean_index(settings.home)
    record = record_file(settings)
    _require_kept(settings, found)
    if not wanted.present or any(changed_files(settings).values()):
        _replace(settings, wanted)
    if not commit:
        return wanted, None
    made, _ = commit_record(settings.home, record, "all tasks, brought back", wanted.version, tagged=False)
    return wanted, made


def _replace(settings: Settings, wanted: DataVersion) -> None:
    """Put a version into the place of the present one, which comes back where that cannot be done."""
    record = record_file(settings)
    before = record.read_bytes() if record.exists() else None
    if settings.data_dir.exists():
        add_to_dvc(settings)  # DVC replaces only what its cache holds
    name = record.relative_to(settings.home).as_posix()
    git(settings.home, "restore", "--source", wanted.commit, "--worktree", "--", name)
    try:
        _require_content(settings, wanted)
    except VersionError:
        if before is not None:
            record.write_bytes(before)  # of the data nothing was touched
        raise
    try:
        run_dvc(settings, "checkout", "--quiet", str(record))
    except VersionError:
        if before is not None:
            record.write_bytes(before)
            with suppress(VersionError):  # the first failure is the one to tell
                run_dvc(settings, "checkout", "--quiet", str(record))
        raise


def _require_content(settings: Settings, wanted: DataVersion) -> None:
    """Bring the content of the version on record into the cache. Raises VersionError where some is lost."""
    try:
        if find_remote(settings):
            run_dvc(settings, "fetch", "--quiet", str(record_file(settings)))
        cache = Path(run_dvc(settings, "cache", "dir").strip()) / "files" / "md5"
        content = files_of_version(settings, wanted)
        missing = [name for name, md5 in content.items() if not (cache / md5[:2] / md5[2:]).is_file()]
    except VersionError as error:
        raise lost(wanted, error.actual) from error
    if missing:  # `dvc fetch` says nothing of files that the remote has not
        raise lost(wanted, f"{len(missing)} files are in neither, such as {missing[0]}")


def _require_kept(settings: Settings, found: Sequence[DataVersion]) -> None:
    """Raise VersionError unless every file of the data folder is, byte for byte, in some version.

    What a checkout that was killed left behind is a mixture of two versions, and no obstacle.
    """
    if not settings.data_dir.exists():
        return
    changes = changed_files(settings)
    new = {name: _md5(settings.home / name) for name in (*changes["added"], *changes["modified"])}
    for one in found:
        if not new:
            return
        with suppress(VersionError):  # a version that cache and remote have lost holds nothing
            held = set(files_of_version(settings, one).values())
            new = {name: md5 for name, md5 in new.items() if md5 not in held}
    if new:
        listed = ", ".join(sorted(new)[:LISTED]) + (" and more" if len(new) > LISTED else "")
        raise VersionError(
            "data that some version holds",
            f"{len(new)} files that none holds: {listed}",
            "Ingest what is new, or set it aside; a checkout would overwrite it.",
        )


def _md5(path: Path) -> str:
    """As DVC names content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
